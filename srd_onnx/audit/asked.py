"""What was asked, of which data, by which methods: the sections of a report before its results."""

from srd_onnx.audit.found import Found
from srd_onnx.audit.images import listed
from srd_onnx.audit.model_section import named_in
from srd_onnx.audit.output import images_digest, images_table
from srd_onnx.audit.sanity import Check
from srd_onnx.engine.options import Options
from srd_onnx.evaluation.contenders import Contender
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.methods import SRD
from srd_onnx.report.content import Section, Table
from srd_onnx.targets import Contrast

_SRD_SAYS = (
    "A pointwise feature vector (PFV) v(j) is the vector of all channels at one position j of a layer, before its "
    "nonlinearity. A layer computes it as a sum of contributions v̂(i→j) of the positions i of its input. The sharing "
    "ratio μ(i→j) = ⟨v̂(i→j), v(j)⟩ / ‖v(j)‖² is the part of i in it. Relevance goes down by R(i) = Σ(j) "
    "μ(i→j) · R(j), from the boundary to the input; above the boundary the gradient, with the activation "
    "pattern held fixed, says what each position has to do with the explained number. Source: Han, Kim, Kwak, "
    "“Respect the model”, ICLR 2024, arXiv 2402.03348; the options and the default preset are srd-onnx's own."
)
_SRD_LIMITS = (
    "Limits: below the boundary the map no longer knows the class, so that maps of different classes can look "
    "alike; the sanity checks say how much on this model. A map shows where the explained number comes from, "
    "given which neurons were active; it does not say what would happen if the image were another, nor that "
    "the model is right."
)
_PEER_LIMITS = (
    "It is here to compare with. It has limits of its own, which its authors describe; its maps need not add "
    "up to the explained number."
)


def asked_section(found: Found) -> Section:
    """In one sentence and a few facts."""
    audit, count = found.audit, len(found.images)
    asked = audit.config.explain
    targets = [
        f"{one.of} rather than {one.over}" if isinstance(one, Contrast) else _target_in_words(str(one))
        for one in audit.targets
    ]
    said = (
        f"On what parts of {count} image{'s' * (count != 1)} does {named_in(audit.base)} base its decisions, "
        "and can its explanations be relied on?"
    )
    facts = (
        ("explained", "; ".join(targets)),
        ("methods", ", ".join(one.name for one in audit.contenders)),
        ("metrics", ", ".join(audit.metrics)),
        ("sanity checks", f"on {asked.sanity_images} images at most: {', '.join(audit.sanity) or 'none'}"),
        ("true classes", "given" if audit.config.data.truth else "not given"),
        ("masks of the objects", "given" if audit.masks else "not given"),
        ("seed", str(asked.seed)),
    )
    return Section("asked", "What was asked", (said,), facts)


def _target_in_words(text: str) -> str:
    if text == "top1":
        return "the class that the model predicts"
    return f"the {text[3:]} classes with the highest scores" if text.startswith("top") else text


def data_section(found: Found) -> Section:
    """Preprocessing, and every image with its digest, prediction and what is wrong with it."""
    audit = found.audit
    preprocess = audit.base.preprocess
    known = preprocess.to_dict() if isinstance(preprocess, Preprocess) else {}
    facts = (
        ("folder", audit.folder.name or str(audit.folder)),
        ("images", f"{len(found.images)}, of which {len(found.usable)} could be explained"),
        images_digest(listed((image.name, image.sha256) for image in found.images)),
        ("preprocessing", "x = (pixel · scale − mean) / std, pixel 0 to 255, after resize and centre crop"),
        *((name.replace("_", " "), str(value)) for name, value in known.items()),
    )
    assumed = (
        (
            "The preprocessing is ASSUMED: an ONNX file does not say it, and nobody did. With another one scores and "
            "explanations are others.",
        )
        if audit.base.preprocess_assumed
        else ()
    )
    labelled = audit.base.label
    rows = []
    for image in found.images:
        index, label, score = image.top5[0] if image.top5 else (None, None, None)
        true = None if image.truth is None else labelled(image.truth) or image.truth
        predicted = index if label is None else label
        rows.append((image.name, image.sha256 or None, predicted, score, true, found.image_error(image)))
    table = images_table(("file", "sha256", "predicted", "score", "true class", "error"), rows)
    return Section("data", "The data", assumed, facts, (table,))


def method_section(found: Found) -> Section:
    """Each method: formula, options, limits; and the sanity checks of it on this model come next."""
    audit = found.audit
    paragraphs: list[str] = []
    facts: list[tuple[str, str]] = []
    for one in audit.contenders:
        paragraphs += _described(one)
        facts += _options(found, one)
    return Section("how", "How it was explained", tuple(paragraphs), tuple(facts))


def _described(one: Contender) -> tuple[str, ...]:
    if one.method is None:
        return f"{one.name}: sharing ratio decomposition. {_SRD_SAYS}", _SRD_LIMITS
    note = f" {one.method.note}" if one.method.note else ""
    return (f"{one.name}: {one.method.title}. Source: {one.method.source}.{note} {_PEER_LIMITS}",)


def _options(found: Found, one: Contender) -> list[tuple[str, str]]:
    about = one.to_dict(found.audit.base)
    options = about.get("options", {}) | about.get("parameters", {})
    preset = [f"preset {about['preset']}"] if about["name"] == SRD else []
    said = [
        *preset,
        *(f"{key} {value}" for key, value in options.items() if key in Options.__dataclass_fields__),
    ]
    said += [f"{key} {value}" for key, value in about.get("parameters", {}).items()]
    return [(one.name, ", ".join(dict.fromkeys(said)))]


def sanity_section(checks: tuple[Check, ...]) -> Section:
    """Verdicts in plain words, with the numbers."""
    if not checks:
        said = "No sanity check was asked for (sanity_images = 0): how far the maps can be relied on is not known."
        return Section("sanity", "Sanity checks on this model", (said,))
    said = (
        "A map can look right and yet not depend on the model. These checks change the model, or the class, "
        "and ask how much of the map stays."
    )
    rows = tuple(
        (
            one.method,
            one.asked,
            one.verdict,
            None if one.found is None else one.found.mean,
            None if one.found is None else one.found.low,
            None if one.found is None else one.found.high,
            None if one.found is None else one.found.count,
            one.said,
        )
        for one in checks
    )
    table = Table(
        "Sanity checks",
        ("method", "question", "verdict", "mean", "low", "high", "images", "in words"),
        rows,
        "Low and high: a 95 % bootstrap interval over images. The thresholds, 0.5 and 0.8, are srd-onnx's own. "
        "Source: Adebayo et al. 2018, arXiv 1810.03292; Sixt, Granz, Landgraf 2020, arXiv 1912.09818.",
    )
    return Section("sanity", "Sanity checks on this model", (said,), (), (table,))

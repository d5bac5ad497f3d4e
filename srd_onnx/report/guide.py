"""The words with which a report explains itself to a reader who has never seen one."""

from srd_onnx.report.content import Report


def place_of(report: Report) -> int:
    """Before which of the sections above the images the guide stands: the first with pictures, else after all."""
    return next((i for i, section in enumerate(report.before) if section.figures), len(report.before))


INTRODUCTION = (
    "For each image the model gives every class a score. An explanation takes one class, the target, and one number "
    "about it, such as its score or by how much it is ahead of the other classes. It says how much of this explained "
    "number each position of the image contributed: the position’s relevance."
)
# The name of a colour, what it says of the target, and what follows it in the sentence.
SCALE = (
    ("Blue", "against", " speaks against the target, "),
    ("red", "for", " for it, "),
    ("white", "neither", " does neither. "),
)
SCALE_END = "What ±1 stands for is written below each map; beyond it the colour stays the same."
SCALE_ALT = "Colour scale: dark blue at −1, through white at 0, to dark red at +1."
WORDS = (
    (
        "Overlay",
        "The photo in grey with the relevance over it, smoothed; where nothing matters the photo shows through.",
    ),
    ("Signed map", "The relevance itself, position by position, not smoothed."),
    (
        "Ledger",
        "What of the explained number belongs to no position, such as the biases of the model, booked at the node "
        "where it arose. Map, ledger and residual together are the explained number.",
    ),
    ("Residual", "What rounding left over. It should be far smaller than the explained number."),
    ("PFV", "Pointwise feature vector: all that one layer of the model knows about one position."),
    ("ERF", "Effective receptive field: of what parts of the image a PFV is made."),
    (
        "Warning",
        "The explanation failed a test of its own; the sentence says which. Do not rely on that map alone.",
    ),
)
INCOMPLETE = "The maps of this method need not add up to the explained number: read where they are strong."

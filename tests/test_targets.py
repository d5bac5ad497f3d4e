"""What may be asked for, by index, label and rank."""

from typing import Any

import numpy as np
import pytest

from srd_onnx.engine.options import DEFAULT_PRESET, PRESETS, Options, options_of
from srd_onnx.errors import OptionError, UnknownTargetError
from srd_onnx.targets import At, Contrast, Wanted, resolve_classes, resolve_contrast, split_targets

SCORES = np.array([0.5, 3.0, -1.0, 3.0, 2.0, 0.0], np.float32)


def resolve_targets(wanted: Any, scores: Any, labels: Any) -> list[int]:
    found = split_targets(wanted)
    assert not found.selections
    assert not found.contrasts
    return resolve_classes(found.classes, scores, labels)


LABELS = ("tench, Tinca tinca", "tabby, tabby cat", "tiger cat", "Egyptian cat", "tiger", "Straße")


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, [1]),  # of equal scores the first
        (0, [0]),
        ("0", [0]),
        (" 4 ", [4]),
        (np.int64(5), [5]),
        ("top1", [1]),
        ("Top3", [1, 3, 4]),
        ("top6", [1, 3, 4, 0, 5, 2]),
        ("tench", [0]),
        ("tench, tinca tinca", [0]),
        ("TINCA TINCA", [0]),
        ("tiger", [4]),  # exactly one class, though another one contains it
        ("egypt", [3]),
        ("STRASSE", [5]),
        ([2, "tench"], [2, 0]),
        (["top2", 3, 1, 0], [1, 3, 0]),  # each once
        ((1, 1), [1]),
        (np.array([2, 4]), [2, 4]),
    ],
)
def test_a_target_is_found_by_index_label_part_of_a_label_or_rank(wanted: Any, indices: list[int]) -> None:
    assert resolve_targets(wanted, SCORES, LABELS) == indices


@pytest.mark.parametrize(
    ("wanted", "labels", "message"),
    [
        (6, LABELS, "target 6 does not exist: the model has 6 scores, 0 to 5"),
        (-1, LABELS, "target -1 does not exist: the model has 6 scores, 0 to 5"),
        ("+9", LABELS, "target 9 does not exist: the model has 6 scores, 0 to 5"),
        ("top0", LABELS, "target 'top0': the model has 6 scores"),
        ("top7", LABELS, "target 'top7': the model has 6 scores"),
        (
            "cat",
            LABELS,
            "target 'cat' fits 3 classes: 1 (tabby, tabby cat), 2 (tiger cat), 3 (Egyptian cat); give the index",
        ),
        ("egyptian kat", LABELS, "no class is called 'egyptian kat'; did you mean 'Egyptian cat'?"),
        ("zzz", LABELS, "no class is called 'zzz'"),
        (
            "tench",
            None,
            "target 'tench' is a label, but the model's labels are not known; "
            "give an index, or the labels with --labels FILE / labels=",
        ),
        ([], LABELS, "no target was given: leave it out for the top class, or name at least one"),
        (1.5, LABELS, "a target is an index, a label or 'top3', not 1.5"),
        (True, LABELS, "a target is an index, a label or 'top3', not True"),
        ([0, None], LABELS, "a target is an index, a label or 'top3', not None"),
        ({"a": 1}, LABELS, "a target is an index, a label or 'top3', not {'a': 1}"),
    ],
)
def test_a_target_that_is_not_there_is_told_with_what_is(
    wanted: Any, labels: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(UnknownTargetError) as caught:
        resolve_targets(wanted, SCORES, labels)
    assert str(caught.value) == message


def test_more_labels_than_scores_are_no_way_around_the_check() -> None:
    with pytest.raises(UnknownTargetError) as caught:
        resolve_targets("tiger", SCORES[:2], LABELS)
    assert str(caught.value) == "target 4 does not exist: the model has 2 scores, 0 to 1"


# Options


def test_the_paper_preset_is_what_the_design_says() -> None:
    assert PRESETS["paper"] == Options(boundary="encoder", seed="logit", sign="signed", bias="distribute")
    assert DEFAULT_PRESET in PRESETS


def test_single_options_change_a_preset() -> None:
    changed = options_of("paper", seed="contrast", sign=None, bias="ledger", boundary="relu3")
    assert changed == Options(boundary="relu3", seed="contrast", sign="signed", bias="ledger")
    assert changed.to_dict() | {"focus": "none", "smooth": 0.0} == changed.to_dict()
    assert PRESETS["paper"] == Options()


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("papr", {}, f"there is no preset 'papr'; there is: {', '.join(PRESETS)}"),
        ("paper", {"seed": "loss"}, "seed='loss' is not one of logit, logprob, contrast, logodds"),
        ("paper", {"sign": "both"}, "sign='both' is not one of signed, positive"),
        ("paper", {"bias": "drop"}, "bias='drop' is not one of distribute, ledger"),
    ],
)
def test_an_option_that_means_nothing_is_told_with_what_does(
    preset: str, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        options_of(preset, **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "tensor", "index"),
    [
        ("logits[3]", "logits", (3,)),
        ("a/b:0[84, 4:, ...]", "a/b:0", (84, slice(4, None), ...)),
        ("x[-1,::2]", "x", (-1, slice(None, None, 2))),
        ("x[]", "x", ()),
    ],
)
def test_elements_of_a_tensor_are_named_as_numpy_indexes(text: str, tensor: str, index: Any) -> None:
    found = split_targets([text, 3])
    assert found == Wanted((3,), (), (At(tensor, index),))
    assert At.parse(str(found.selections[0])) == found.selections[0]


def test_a_label_with_brackets_is_no_selection() -> None:
    assert split_targets("crane [bird]") == Wanted(("crane [bird]",), (), ())


def test_a_selection_weighs_what_it_names() -> None:
    np.testing.assert_array_equal(At("x", (1, slice(None))).direction((2, 3)), [0, 0, 0, 1, 1, 1])
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(At("x", mask).direction((2, 2)), [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            (5,),
            r"target x\[5\]: index 5 is out of bounds for axis 0 with size 2; behind the batch it has \[2, 3\]",
        ),
        ((slice(2, 2),), r"target x\[2:2\] selects nothing; behind the batch it has \[2, 3\]"),
        (
            np.ones((3, 2)),
            r"the mask or weights for 'x' have shape \[3, 2\], but behind the batch it has \[2, 3\]",
        ),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(index: Any, message: str) -> None:
    with pytest.raises(UnknownTargetError, match=f"^{message}$"):
        At("x", index).direction((2, 3))


def test_how_many_classes_are_asked_for_is_known_before_the_scores() -> None:
    assert split_targets([3, "top5", "tabby"]).class_count == 7
    assert split_targets(Contrast(1, 2)).class_count == 0


def test_a_contrast_is_between_two_classes() -> None:
    assert resolve_contrast(Contrast("tiger cat", 1), SCORES, LABELS) == (2, 1)
    with pytest.raises(UnknownTargetError, match="both are class 1"):
        resolve_contrast(Contrast("tabby", 1), SCORES, LABELS)
    with pytest.raises(UnknownTargetError, match="between two classes"):
        resolve_contrast(Contrast("top2", 1), SCORES, LABELS)
    with pytest.raises(UnknownTargetError, match="9 does not exist"):
        resolve_contrast(Contrast(0, 9), SCORES, LABELS)

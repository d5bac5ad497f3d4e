"""The split: on which models and photos presets are chosen, and on which others `quality` reports."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.imagenet import free_photos, photos

# Classifiers of ImageNet (benchmarks.imagenet), and networks that know pasted objects (benchmarks.pasted_net).
PASTED = "pasted_"
TUNING = ("squeezenet11", "efficientnet_lite1", f"{PASTED}resnet")
REPORTING = ("efficientnet_lite0", "efficientnet_lite2", f"{PASTED}vgg")


@dataclass(frozen=True)
class Halves:
    """Photos to choose by, and others to report on: by the second nothing is ever chosen."""

    tuning: tuple[Path, ...]
    reporting: tuple[Path, ...]


def halves() -> Halves:
    """Of the ImageNet photos every other one; the free photos are all for reporting."""
    return split(sorted(photos()), free_photos())


def split(of_imagenet: list[Path], free: list[Path]) -> Halves:
    """The rule itself, for photos in order."""
    return Halves(tuple(of_imagenet[::2]), (*of_imagenet[1::2], *free))

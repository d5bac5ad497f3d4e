"""Where compiled models are kept, and whether."""

import os
from pathlib import Path

import platformdirs

from srd_onnx.cache.digests import Digests
from srd_onnx.cache.store import Store

VARIABLE = "SRD_ONNX_CACHE"
OFF = "off"


def root() -> Path | None:
    """The folder that the variable SRD_ONNX_CACHE names, or the platform's for caches; None where it is "off"."""
    named = os.environ.get(VARIABLE, "")
    if named.lower() == OFF:
        return None
    return Path(named).expanduser() if named else platformdirs.user_cache_path("srd-onnx", appauthor=False)


def digests(by: str) -> Digests | None:
    """The digests of models that were loaded before, `by` this code; None where nothing is to be kept."""
    where = root()
    return None if where is None else Digests(where / "digests.json", by)


def store() -> Store | None:
    """What is kept there; None where nothing is to be."""
    where = root()
    return None if where is None else Store(where / "compiled")

"""The artefact on disk: one file or folder per dynamic network (``docs/format.md``)."""

from dynrt.bundle.build import build_bundle, replace_parts
from dynrt.bundle.limits import DEFAULT_LIMITS, Limits
from dynrt.bundle.model import Bundle, Preprocessing
from dynrt.bundle.packaged import PackagedModel, packaged_models, resolve
from dynrt.bundle.reader import read_bundle
from dynrt.bundle.writer import write_bundle

__all__ = [
    "DEFAULT_LIMITS",
    "Bundle",
    "Limits",
    "PackagedModel",
    "Preprocessing",
    "build_bundle",
    "packaged_models",
    "read_bundle",
    "replace_parts",
    "resolve",
    "write_bundle",
]

"""Finds what ``dynrt export MODULE:OBJECT`` names."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path

from dynrt.errors import ExportError
from dynrt.exporters.foreign import brief
from dynrt.exporters.spec import NetworkBuilder, NetworkSpec


def load_target(text: str) -> NetworkSpec:
    """The network that ``package.module:OBJECT`` names.

    ``OBJECT`` is a :class:`NetworkSpec`, a :class:`NetworkBuilder`, or a function without arguments
    that gives one. Modules of the working directory are found too. Importing runs the module's code:
    it is the caller's own.

    Raises:
        ExportError: the text is not of that form, the import fails, or the object is another.
    """
    module_name, colon, path = text.partition(":")
    parts = module_name.split(".")
    if not colon or not path or not all(p.isidentifier() for p in (*parts, *path.split("."))):
        raise ExportError(f"{text!r} is no target; write package.module:OBJECT")
    module = _imported(module_name)
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            near = get_close_matches(name, dir(found), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ExportError(f"{text}: {module_name} has no {path!r}{hint}")
        found = getattr(found, name)
    if callable(found) and not isinstance(found, type):
        try:
            found = found()
        except Exception as exc:
            raise ExportError(f"{text}: the function fails: {brief(exc)}") from exc
    if isinstance(found, NetworkBuilder):
        found = found.build()
    if not isinstance(found, NetworkSpec):
        raise ExportError(
            f"{text} is a {type(found).__name__}, not a NetworkSpec or a function that gives one"
        )
    return found


def _imported(name: str) -> object:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as exc:
        raise ExportError(f"cannot import {name}: {brief(exc)}") from exc
    finally:
        if added and here in sys.path:
            sys.path.remove(here)

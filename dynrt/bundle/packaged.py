"""The bundles that come with dynrt, and how a name or path finds one."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from dynrt.bundle.names import is_name, shown
from dynrt.errors import BundleNotFoundError

SUFFIX = ".dynrt"
_FOLDER = Path(__file__).parent / "packaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A bundle that comes with dynrt.

    Attributes:
        name: what ``dynrt run NAME`` takes; the file's name without its suffix.
        path: the file.
        size_bytes: its size.
    """

    name: str
    path: Path
    size_bytes: int


def packaged_models() -> tuple[PackagedModel, ...]:
    """The bundles that come with dynrt, by name; none of them is read."""
    return tuple(
        PackagedModel(name=path.stem, path=path, size_bytes=path.stat().st_size)
        for path in sorted(_FOLDER.glob(f"*{SUFFIX}"))
    )


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """The file or folder that ``name_or_path`` means.

    A packaged name comes first (``./NAME`` is the folder or file of that name); anything else is a
    path.

    Raises:
        BundleNotFoundError: there is neither; names what comes close.
    """
    text = os.fspath(name_or_path)
    known = {m.name: m.path for m in packaged_models()}
    if isinstance(name_or_path, str) and text in known:
        return known[text]
    path = Path(text)
    try:
        if text and path.exists():
            return path
    except (OSError, ValueError):  # too long a name; a NUL in it, from Python 3.12 on
        raise BundleNotFoundError(f"{shown(text)}: cannot be a file") from None
    if not is_name(text):
        raise BundleNotFoundError(
            f"{text if text.isprintable() else shown(text)}: no such file or folder"
        )
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = (
        f"; do you mean {close[0]}?" if close else f"; packaged are: {', '.join(known) or 'none'}"
    )
    raise BundleNotFoundError(f"{text}: no such file, folder or packaged bundle{hint}")

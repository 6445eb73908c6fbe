"""Names that are safe everywhere: as a file on any system, in a message, on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dynrt.errors import BundleMemberError, BundlePathError

MANIFEST = "manifest.json"
LAYERS = "layers.json"
COUNTS = "counts.json"
#: Members beside the manifest that no node has: tables that energy models need.
TABLES = (LAYERS, COUNTS)
NODES = "nodes"
_SUFFIX = ".onnx"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_MEMBER = re.compile(r"nodes/[^/]+\.onnx")
_DRIVE = re.compile(r"[A-Za-z]:")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)
#: Control characters, line separators, marks that turn text around, halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_SHOWN_CHARS = 80


def shown(value: object) -> str:
    """``value`` for a message: one short line of printable ASCII."""
    if isinstance(value, str):
        cut = value[:_SHOWN_CHARS]
        text = ascii(cut)
        return text if cut == value else text + "..."
    if isinstance(value, bool | float) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else "a huge number"
    return f"a {type(value).__name__}"


#: What names of nodes and ports are made of, in words; ``dynrt.ir.check`` asks the same.
NAME_RULE = "1 to 100 of A-Z a-z 0-9 _ - and no digit or - first"


def is_name(name: str) -> bool:
    """Whether ``name`` can be a node, a port, and a file on any system."""
    return _NAME.fullmatch(name) is not None


def unseen(text: str) -> str | None:
    """The first character that a reader of ``text`` would not see, or ``None``."""
    match = _UNSEEN.search(text)
    return None if match is None else match[0]


def member_of(node: str) -> str:
    """The member that holds the ONNX of ``node``."""
    return f"{NODES}/{node}{_SUFFIX}"


def check_member_path(path: str) -> None:
    """Refuse a member's name that could leave the bundle, or is not portable.

    Raises:
        BundlePathError: with what is wrong with it.
    """
    if path == MANIFEST or path in TABLES:
        return
    for found, why in (
        ("\x00" in path, "holds a NUL"),
        ("\\" in path, "holds a backslash"),
        (path.startswith("/"), "is absolute"),
        (_DRIVE.match(path) is not None, "names a drive"),
        (any(part in (".", "..") for part in path.split("/")), "leaves the bundle"),
    ):
        if found:
            raise BundlePathError(f"member {shown(path)} {why}")
    if _MEMBER.fullmatch(path) is None:
        raise BundlePathError(
            f"member {shown(path)}: expected {MANIFEST}, {', '.join(TABLES)} or "
            f"{NODES}/NAME{_SUFFIX}"
        )
    name = path[len(NODES) + 1 : -len(_SUFFIX)]
    if not is_name(name):
        raise BundlePathError(f"member {shown(path)}: a name is {NAME_RULE}")
    if _RESERVED.fullmatch(name):
        raise BundlePathError(f"member {shown(path)}: {shown(name)} is a device's name on Windows")


def check_member_paths(paths: Iterable[str]) -> None:
    """Check each of ``paths``, and that no two are one file where case does not count.

    Raises:
        BundlePathError: a name is not portable, or two differ only in case.
        BundleMemberError: a name comes twice.
    """
    seen: dict[str, str] = {}
    for path in paths:
        check_member_path(path)
        other = seen.setdefault(path.lower(), path)
        if other is not path:
            if other == path:
                raise BundleMemberError(f"member {shown(path)} is there twice")
            raise BundlePathError(f"members {shown(other)} and {shown(path)} differ only in case")

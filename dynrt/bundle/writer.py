"""Writes bundles: the same bundle is always the same bytes, and a killed writer leaves the old one."""

from __future__ import annotations

import os
from pathlib import Path

from dynrt.bundle.archive import encode_archive
from dynrt.bundle.atomic import put_file, put_folder
from dynrt.bundle.build import encode_again
from dynrt.bundle.limits import DEFAULT_LIMITS, Limits
from dynrt.bundle.model import Bundle
from dynrt.bundle.reader import compare_certificates
from dynrt.errors import BundleWriteError


def write_bundle(
    bundle: Bundle,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    folder: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> str:
    """Write ``bundle`` to ``path``.

    Args:
        bundle: what to write; it is checked as a reader checks it.
        path: the file, or the folder.
        force: whether a file or bundle that is there may be replaced.
        folder: whether to write a folder instead of a file.
        limits: what readers accept.

    Returns:
        The SHA-256 of the manifest, in hex.

    Raises:
        OutputExistsError: something is there, and ``force`` is not given.
        BundleWriteError: no permission, no such folder, a full disk; what was there still is.
        BundleError: a reader would refuse the bundle.
        GraphError: its graph breaks an invariant.
    """
    target = Path(path)
    if "\x00" in os.fspath(target) or target.name in ("", ".."):
        raise BundleWriteError(f"{os.fspath(path)!a}: is no name for a file")
    built, members = encode_again(bundle, limits=limits)
    compare_certificates(bundle.certificate, built.certificate)
    if folder:
        put_folder(members, target, force=force)
    else:
        put_file(encode_archive(members), target, force=force)
    return built.sha256

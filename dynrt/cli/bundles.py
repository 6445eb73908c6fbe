"""Finding the bundle that a person means."""

from __future__ import annotations

from pathlib import Path

from dynrt.bundle import Bundle, packaged_models, read_bundle, resolve
from dynrt.errors import BundleNotFoundError

#: What runs where no bundle is named.
DEFAULT = "resnet74-ddi"


def open_bundle(name: str | None) -> Bundle:
    """The bundle at a path or of a packaged name; without a name the packaged default.

    Raises:
        BundleError, GraphError: there is none, or it cannot be trusted.
    """
    if name is not None:
        return read_bundle(resolve(name))
    names = [model.name for model in packaged_models()]
    if not names:
        raise BundleNotFoundError("no bundle comes with this dynrt: name one")
    return read_bundle(resolve(DEFAULT if DEFAULT in names else names[0]))


def names_bundle(text: str) -> bool:
    """Whether ``text`` is a ``.dynrt`` file, a bundle's folder or a packaged name: no input."""
    path = Path(text)
    if path.suffix == ".dynrt" or (path / "manifest.json").is_file():
        return True
    return any(model.name == text for model in packaged_models())

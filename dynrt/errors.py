"""Every error that dynrt raises on purpose.

::

    DynrtError
    ├── QuantityError            text that is no amount (``100M``, ``2mJ``)
    ├── GraphError               a graph breaks an invariant; names the violations
    ├── BundleError              a bundle cannot be read or written
    │   ├── BundleNotFoundError      no such file, folder or packaged name
    │   ├── BundleArchiveError       not a ZIP, or a ZIP that bundles do not use
    │   ├── BundleSizeError          larger, deeper or more than the limits allow
    │   ├── BundleMemberError        a member is missing, unlisted, listed twice, or no plain file
    │   ├── BundlePathError          a member's name escapes, or is not portable
    │   ├── BundleHashError          bytes do not match their SHA-256
    │   ├── BundleVersionError       a format version that this dynrt does not read
    │   ├── ManifestError            the manifest is not what the format says; names the field
    │   ├── BundleModelError         a node's ONNX is not plain ONNX of the declared ports
    │   ├── CertificateError         the stored certificate is not the recomputed one
    │   └── BundleWriteError         the target cannot be written; the old file stands
    ├── InputError               an input of the wrong name, shape, dtype, or not finite
    ├── PolicyError              a threshold or parameter that the network does not have or take
    ├── BudgetError              a budget that cannot be used
    │   └── BudgetRefusedError       below the cheapest answer, which it names
    ├── BackendError             a node failed, or returned something undeclared
    ├── CompileError             a bundle cannot be compiled on this device; it still runs portably
    ├── CacheError               the cache of compiled networks cannot be read or written
    ├── DataError                a data set or picture cannot be read
    ├── EnergyError              energy that cannot be modelled: no layer table, no counts
    │   ├── HardwareError            a hardware description that is wrong; names file, line, field
    │   ├── EnergyTableError         an energy table that is wrong; names file, line, field
    │   └── SimulatorError           SCALE-Sim failed on a layer, or does not take it
    ├── CalibrationError         no threshold meets the target, or too little data
    ├── ExportError              a module cannot be lowered to a bundle
    │   ├── ParityError              the written bundle does not compute what the module does
    │   └── BoardFitError            a network does not fit the board; names operator and bytes
    ├── MeasureError             a measurement session cannot go on
    │   ├── LinkError                a port is missing, taken or unplugged
    │   ├── MeterError               a meter does not answer, or not as its kind does
    │   ├── BoardError               the board's agent refuses, or was reset
    │   └── SessionError             a stored session is damaged, or lacks what is asked of it
    ├── RecipeError              a training recipe or checkpoint is wrong
    ├── OutputExistsError        would overwrite a file without leave
    └── MissingExtraError        an optional part is not installed; says what to type
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DynrtError(Exception):
    """Root of all errors that dynrt raises on purpose; its text is one line for a person."""


class QuantityError(DynrtError):
    """A text is no amount of FLOPs, MACs, joules or seconds."""


class _Violation(Protocol):
    """What ``GraphError`` needs of a violation (``dynrt.ir.check.Violation``)."""

    @property
    def code(self) -> str: ...
    def __str__(self) -> str: ...


class GraphError(DynrtError):
    """A graph breaks at least one invariant.

    Attributes:
        violations: all that were found, in a stable order.
        codes: their short codes.
    """

    def __init__(self, violations: Sequence[_Violation], *, place: str = "") -> None:
        self.violations = tuple(violations)
        self.codes = tuple(v.code for v in self.violations)
        more = f" (+{len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{place + ': ' if place else ''}{violations[0]}{more}")


class BundleError(DynrtError):
    """A bundle cannot be read or written."""


class BundleNotFoundError(BundleError):
    """No such file, folder or packaged name."""


class BundleArchiveError(BundleError):
    """Not a ZIP archive, or one that uses what bundles do not use."""


class BundleSizeError(BundleError):
    """A declared or actual size, count, depth or ratio exceeds what the reader accepts."""

    def __init__(self, what: str, *, got: int, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what}: {got} {unit}; the limit is {limit} {unit}")


class BundleMemberError(BundleError):
    """A member is missing, not listed, listed twice, or no plain file."""


class BundlePathError(BundleError):
    """A member's name leaves the bundle or is not portable."""


class BundleHashError(BundleError):
    """The bytes of a member do not match the manifest's SHA-256."""


class BundleVersionError(BundleError):
    """The format version is not one that this dynrt reads."""


class ManifestError(BundleError):
    """The manifest is not what the format says; the message names the field."""


class BundleModelError(BundleError):
    """A node's ONNX is not plain ONNX with the declared ports."""


class CertificateError(BundleError):
    """The stored certificate differs from the recomputed one."""


class BundleWriteError(BundleError):
    """The bundle cannot be written; what stood there before still stands."""


class InputError(DynrtError):
    """An input has the wrong name, shape or dtype, or holds a value that is not finite."""


class PolicyError(DynrtError):
    """A threshold or parameter that this network does not have, or that is not finite."""


class BudgetError(DynrtError):
    """A budget that cannot be used with this network."""


class BudgetRefusedError(BudgetError):
    """The budget is below the cheapest answer; nothing ran.

    Attributes:
        cheapest: the least budget that would be accepted (FLOPs, joules or seconds), if computed.
    """

    def __init__(self, message: str, *, cheapest: float | None = None) -> None:
        super().__init__(message)
        self.cheapest = cheapest


class BackendError(DynrtError):
    """A node failed, or returned something that its ports do not declare."""


class CompileError(DynrtError):
    """A bundle cannot be compiled on this device; the portable mode still runs it."""


class CacheError(DynrtError):
    """The cache of compiled networks cannot be read or written."""


class DataError(DynrtError):
    """A data set or a picture cannot be read."""


class EnergyError(DynrtError):
    """Energy that cannot be modelled: no layer table, no counts, or a layer beyond the model."""


class HardwareError(EnergyError):
    """A hardware description is wrong; the message names file, line and field."""


class EnergyTableError(EnergyError):
    """An energy table is wrong; the message names file, line and field."""


class SimulatorError(EnergyError):
    """SCALE-Sim failed on a layer, or does not take it."""


class CalibrationError(DynrtError):
    """No threshold meets the target, or the scores are too few or wrong."""


class ExportError(DynrtError):
    """A module cannot be lowered to a bundle."""


class ParityError(ExportError):
    """The written bundle does not compute what the module computes."""


class BoardFitError(ExportError):
    """A network does not fit the board: the operator and the bytes are named."""


class MeasureError(DynrtError):
    """A measurement session cannot go on."""


class LinkError(MeasureError):
    """A port is missing, taken or unplugged."""


class MeterError(MeasureError):
    """A meter does not answer, or not as its kind does."""


class BoardError(MeasureError):
    """The board's agent refuses, is of another version, or was reset."""


class SessionError(MeasureError):
    """A stored session is damaged, or lacks what is asked of it."""


class RecipeError(DynrtError):
    """A training recipe or a checkpoint is wrong; the message names the field."""


class OutputExistsError(DynrtError):
    """A file is in the way and nobody allowed to replace it."""


class MissingExtraError(DynrtError):
    """An optional part is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is missing: pip install 'dynrt[{extra}]'")
        self.extra = extra


def first_line(exc: Exception) -> str:
    """What a foreign error says, in at most one line; its kind if it says nothing."""
    lines = str(exc).strip().splitlines()
    return lines[0][:300] if lines else type(exc).__name__

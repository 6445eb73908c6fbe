"""Builds the native kernels: as a hatchling hook, or in place by ``python hatch_build.py``.

Whatever goes wrong (no compiler, no Python headers) leaves a package that runs on numpy alone, after
one line of warning. ``DYNRT_NO_NATIVE=1`` in the environment leaves the kernels out; ``CC`` and
``CFLAGS`` are honoured.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path("dynrt", "runtime", "kernels")
SOURCE = "_native.c"
FLAGS = (
    "-O3 -std=gnu11 -fPIC -fwrapv -fno-math-errno -fno-trapping-math -fvisibility=hidden -DNDEBUG "
    "-Wall -Wextra -Wno-missing-field-initializers -Wno-unknown-pragmas -Wno-psabi"
)
TIMEOUT_S = 300


def build_native(root: Path) -> Path | None:
    """Compile the extension beside its source.

    Args:
        root: of the source tree.

    Returns:
        The extension, or ``None`` if it was not built; standard error says why.
    """
    if os.environ.get("DYNRT_NO_NATIVE", "") not in ("", "0"):
        return None
    folder = root / FOLDER
    target = folder / f"_native{sysconfig.get_config_var('EXT_SUFFIX') or '.so'}"
    try:
        _compile(folder / SOURCE, target)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        why = exc.stderr if isinstance(exc, subprocess.CalledProcessError) else str(exc)
        line = next((ln for ln in str(why).splitlines() if ln.strip()), type(exc).__name__)
        sys.stderr.write(f"warning: dynrt without native kernels, numpy instead: {line.strip()}\n")
        return None
    return target


def _compile(source: Path, target: Path) -> None:
    """Compile to a new file and put it in the target's place, which may be in use."""
    command = compiler()
    shared = (
        ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    )
    include = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory(dir=source.parent, prefix=".native-") as folder:
        built = Path(folder, target.name)
        subprocess.run(  # noqa: S603 - the compiler that the environment names
            [
                *command,
                *FLAGS.split(),
                *shlex.split(os.environ.get("CFLAGS", "")),
                f"-I{include}",
                str(source),
                *shared,
                "-lm",
                "-o",
                str(built),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        built.replace(target)


def compiler() -> list[str]:
    """The C compiler's command.

    Raises:
        OSError: there is none.
    """
    named = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    for command in (named, ["cc"], ["gcc"], ["clang"]):
        if command and (found := shutil.which(command[0])):
            return [found, *command[1:]]
        if os.environ.get("CC"):
            break
    raise OSError(f"no C compiler {named[0]!r}")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script where the build backend is not installed
    pass
else:

    class NativeBuildHook(BuildHookInterface[Any]):
        """Puts the extension into wheels, and into the tree of an editable install."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile, and tag the wheel with this Python and platform if that worked."""
            del version
            if self.target_name != "wheel":
                return
            built = build_native(Path(self.root))
            if built is not None:
                build_data["artifacts"].append((FOLDER / built.name).as_posix())
                build_data["pure_python"] = False
                build_data["infer_tag"] = True


if __name__ == "__main__":
    made = build_native(Path(__file__).resolve().parent)
    if made is not None:
        sys.stdout.write(f"{made}\n")
    sys.exit(made is None)

"""Print what edgeseg needs beside what a Jetson's system brings, one requirement per line.

``jetson/setup.sh`` gives the lines to pip. edgeseg itself is installed without its dependencies
first; this program reads them from its metadata. It leaves out TensorRT, which comes with JetPack,
and opencv-python if the system has its own cv2.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable

from pip._vendor.packaging.requirements import Requirement

# Packages made before NumPy 2 cannot be loaded beside it: JetPack's cv2 is one.
NUMPY_OF_SYSTEM_CV2 = "numpy<2"
CUDA_BINDINGS = ("cuda-python", "cuda-bindings", "cuda-core")


def requirements(declared: Iterable[str], *, extra: str, cuda: str, system_cv2: bool) -> list[str]:
    """Return those of the ``declared`` requirements that are to be installed.

    They are those of the base and of the ``extra``, on this Python. CUDA's bindings are held to the
    version ``cuda`` of the system's toolkit, such as ``12.6``: newer ones bring a newer runtime,
    which a board's driver may refuse.
    """
    major, minor = map(int, cuda.split("."))
    chosen = []
    for text in declared:
        requirement = Requirement(text)
        wanted = (
            any(requirement.marker.evaluate({"extra": e}) for e in ("", extra))
            if requirement.marker
            else True
        )
        name = requirement.name.lower().replace("_", "-")
        if (
            not wanted
            or name.startswith("tensorrt")
            or (system_cv2 and name.startswith("opencv-python"))
        ):
            continue
        requirement.marker = None
        if name in CUDA_BINDINGS[:2]:
            requirement.specifier &= f">={major}.{minor},<{major}.{minor + 1}"
        chosen.append(str(requirement))
    return [*chosen, NUMPY_OF_SYSTEM_CV2] if system_cv2 else chosen


def has_system_cv2() -> bool:
    """Return True if the system's Python has an OpenCV of its own, looked for outside this
    environment.
    """
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('cv2') is None)"
    base = getattr(sys, "_base_executable", sys.executable)
    return subprocess.run([base, "-I", "-c", code], check=False).returncode == 0


def main() -> None:
    """Print the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cuda", required=True, help="version of the system's CUDA, such as 12.6")
    parser.add_argument("--extra", default="tensorrt")
    given = parser.parse_args()
    declared = importlib.metadata.requires("edgeseg") or []
    known = set(re.findall(r"extra == ['\"]([\w-]+)", "\n".join(declared)))
    extra = given.extra if given.extra in known else ""
    chosen = requirements(declared, extra=extra, cuda=given.cuda, system_cv2=has_system_cv2())
    print("\n".join(chosen))


if __name__ == "__main__":
    main()

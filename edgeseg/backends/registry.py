"""List the targets, and choose the one that ``auto`` means on this machine."""

import os

from edgeseg.backends.base import Backend
from edgeseg.backends.openvino.backend import TARGET, OpenVinoBackend
from edgeseg.backends.tensorrt import backend as tensorrt
from edgeseg.backends.tensorrt.bindings import is_installed
from edgeseg.backends.tensorrt.cuda import has_gpu
from edgeseg.errors import InputError, did_you_mean

CHOICE = "EDGESEG_TARGET"  # environment variable that decides what `auto` means

_ALL: tuple[Backend, ...] = (OpenVinoBackend(), *tensorrt.BACKENDS)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


def find_backend(name: str) -> Backend:
    """Return the backend of a target.

    Parameters
    ----------
    name : a target's name, or ``auto``: the target that ``$EDGESEG_TARGET`` names; without it the
        first TensorRT that is installed if there is a GPU; otherwise the CPU.

    Raises
    ------
    InputError : there is no target of that name.

    Examples
    --------
    >>> find_backend("cpu").floats
    ('fp32', 'bf16')
    """
    if name == "auto" and os.environ.get(CHOICE, "auto") != "auto":
        return find_backend(os.environ[CHOICE])
    if name == "auto":
        return BACKENDS[_best_target()]

    if name not in BACKENDS:
        suggestion = did_you_mean(name, BACKENDS)
        hint = f"${CHOICE} says so." if name == os.environ.get(CHOICE) else suggestion
        expected = f"auto or {', '.join(BACKENDS)}"
        raise InputError("unknown target", got=repr(name), expected=expected, hint=hint)
    return BACKENDS[name]


def _best_target() -> str:
    """Return the first installed GPU target if there is a GPU, else the CPU target."""
    if not has_gpu():
        return TARGET
    installed = [name for name in BACKENDS if name != TARGET and is_installed(name)]
    return installed[0] if installed else TARGET

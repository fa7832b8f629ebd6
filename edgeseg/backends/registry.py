"""List the targets, and choose the one that ``auto`` means on this machine."""

import os

from edgeseg.backends.base import Backend
from edgeseg.backends.openvino import backend
from edgeseg.backends.tensorrt import backend as tensorrt
from edgeseg.backends.tensorrt.bindings import is_installed
from edgeseg.backends.tensorrt.cuda import has_gpu
from edgeseg.errors import InputError

CHOICE = "EDGESEG_TARGET"  # environment variable that decides what `auto` means

_ALL: tuple[Backend, ...] = (backend.OpenVinoBackend(), *tensorrt.BACKENDS)
BACKENDS: dict[str, Backend] = {one.name: one for one in _ALL}


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
        hint = f"${CHOICE} says so." if name == os.environ.get(CHOICE) else None
        raise InputError("unknown target", got=repr(name), expected=f"auto or {', '.join(BACKENDS)}", hint=hint)
    return BACKENDS[name]


def _best_target() -> str:
    """Return the first installed GPU target if there is a GPU, else the CPU target."""
    if not has_gpu():
        return backend.TARGET
    installed = [name for name in BACKENDS if name != backend.TARGET and is_installed(name)]
    return installed[0] if installed else backend.TARGET

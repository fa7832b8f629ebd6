"""The targets there are, and which one ``auto`` is here."""

import os

from edgeseg.errors import InputError
from edgeseg.runtime import cpu
from edgeseg.runtime.target import Target
from edgeseg.runtime.tensorrt import target as tensorrt
from edgeseg.runtime.tensorrt.cuda import has_gpu
from edgeseg.runtime.tensorrt.library import is_installed

CHOICE = "EDGESEG_TARGET"

TARGETS: dict[str, Target] = {t.name: t for t in (cpu.CpuTarget(), *tensorrt.TARGETS)}


def find_target(name: str) -> Target:
    """The target of that name.

    ``auto``: what ``$EDGESEG_TARGET`` says, else a TensorRT that is installed where there is a GPU, else the CPU.
    """
    if name == "auto" and os.environ.get(CHOICE, "auto") != "auto":
        return find_target(os.environ[CHOICE])
    if name == "auto":
        gpu = [t for t in TARGETS if t != cpu.TARGET and is_installed(t)] if has_gpu() else []
        return TARGETS[gpu[0] if gpu else cpu.TARGET]
    if name not in TARGETS:
        hint = f"${CHOICE} says so." if name == os.environ.get(CHOICE) else None
        raise InputError("unknown target", got=repr(name), expected=f"auto or {', '.join(TARGETS)}", hint=hint)
    return TARGETS[name]

"""Other processors: a program that sees this one with some of its instruction sets hidden (Linux,
x86, gcc).

``other_processor.c`` does the hiding. A processor can lose instruction sets and gains none, so each
kind asks for what it keeps.
"""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from paths import TESTS

VARIABLE = "OTHER_PROCESSOR"  # in the environment of a program that sees another processor

# Each kind, and what the host needs to have for it (names of /proc/cpuinfo).
KINDS = {
    "avx512-bf16": ("avx512_bf16", "avx512_vnni"),
    "avx512-vnni": ("avx512_vnni",),
    "avx512": ("avx512bw", "avx512vl"),
    "avx2-vnni": ("avx_vnni",),
    "avx2": ("avx2",),
}
WITHOUT_AMX = "avx512-vnni"  # the kind that most servers without AMX are


@functools.cache
def host_features() -> frozenset[str]:
    """Return the instruction sets that this process sees, as /proc/cpuinfo names them.

    Empty if there is no such file.

    What is hidden from this process itself (a whole test run without AMX, say) is not among them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    features = frozenset(flags.partition(":")[2].split())
    return without_hidden(features, os.environ.get(VARIABLE))


def without_hidden(features: frozenset[str], kind: str | None) -> frozenset[str]:
    """Return ``features`` without those that ``tests/support/other_processor.c`` hides for
    ``kind``.
    """
    if kind is None:
        return features

    hidden = {name for name in features if name.startswith("amx")}
    hidden.add("avx512_fp16")
    if kind != "avx512-bf16":
        hidden.add("avx512_bf16")
    if kind not in ("avx512-bf16", "avx512-vnni"):
        hidden.add("avx512_vnni")
    if kind.startswith("avx2"):
        hidden |= {name for name in features if name.startswith("avx512")}
    if kind != "avx2-vnni":
        hidden.add("avx_vnni")
    return features - hidden


def why_not(kind: str) -> str:
    """Why this machine cannot show what happens on another kind of processor; ``""`` if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("gcc") is None:
        return "instruction sets are hidden on Linux on x86 alone, with gcc"
    if "cpuid_fault" not in host_features():
        return "CPUID cannot be made to fault on this processor"
    missing = [name for name in KINDS[kind] if name not in host_features()]
    return f"this processor has no {', '.join(missing)} to be left with" if missing else ""


@functools.cache
def library() -> Path:
    """The preloaded library, compiled once a process."""
    out = Path(tempfile.mkdtemp(prefix="edgeseg-other-")) / "other_processor.so"
    source = TESTS / "support" / "other_processor.c"
    command = [
        "gcc",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        str(source),
        "-o",
        str(out),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def environment(kind: str) -> dict[str, str]:
    """The environment of a program that sees another kind of processor.

    Skips the test where that cannot be.
    """
    if reason := why_not(kind):
        pytest.skip(reason)
    return {**os.environ, "LD_PRELOAD": str(library()), VARIABLE: kind}


def run_on(kind: str, code: str, *arguments: object) -> str:
    """What a Python program prints on another kind of processor."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(kind))
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_SAME_LABELS = """
import json, sys
import numpy as np
from edgeseg.graph.network import Overrides, load_network
from edgeseg.backends.openvino import forms
from edgeseg.backends.proof import reference
facts = json.loads(sys.argv[1])
overrides = Overrides(**{key: tuple(value) for key, value in facts["overrides"].items()})
frames = list(np.load(facts["frames"]))
found = []
for path in facts["files"]:
    network = load_network(path, overrides)
    known = reference(network, frames)
    chosen = forms.choose(network, "int8", known=known)
    found.append({"same": known.agreement(chosen.compiled), "repaired": len(chosen.form.rounded)})
print(json.dumps(found))
"""


def same_labels(
    kind: str,
    files: Sequence[Path],
    frames: Sequence[np.ndarray],
    folder: Path,
    **overrides: Sequence[float],
) -> list[dict[str, float]]:
    """Of Q/DQ files whose engines are built on another kind of processor: the share of labels that
    are the file's (``same``), and how many layers had to be computed in float (``repaired``).
    ``overrides`` complete their specs.
    """
    np.save(folder / "frames.npy", np.stack(frames))
    facts = {
        "files": [str(f) for f in files],
        "frames": str(folder / "frames.npy"),
        "overrides": overrides,
    }
    return list(json.loads(run_on(kind, _SAME_LABELS, json.dumps(facts)).splitlines()[-1]))


def skip_unless_amx_can_be_hidden() -> None:
    """Where there is no AMX, or it is hidden already, the tests themselves run without it."""
    if VARIABLE in os.environ or "amx_int8" not in host_features():
        pytest.skip("this process sees no AMX: the other tests have run without it")
    if reason := why_not(WITHOUT_AMX):
        pytest.skip(reason)


def name() -> str:
    """Which processor the tests of this process see, in a few words."""
    hidden = os.environ.get(VARIABLE)
    if hidden:
        return f"another processor, {hidden}"
    return "this processor, " + ("with AMX" if "amx_int8" in host_features() else "without AMX")

"""The INT8 tests again, in processes that see this processor without AMX: what most x86 processors are.

Where this processor has no AMX, the tests themselves have run without it, and these are skipped.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import processors
import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent
# What to run, and how many tests at least: the nets of the registry that join features otherwise than the others.
RUNS = {
    "patterns": (["test_int8_patterns.py"], 100),
    "runtimes": (["test_int8_runtimes.py", "-k", "same_labels or labels_are_the_same or rounds_where"], 16),
    "build": (["test_int8_build.py", "test_guard.py", "test_tiny_scales.py", "test_float_rounding.py"], 40),
    "every net": (
        [
            "test_every_net.py",
            "-k",
            "int8 and (unet-resnet34 or pspnet or r2unet or fcn-resnet34 or enet or segnet-light)",
        ],
        6,
    ),
}


@pytest.mark.parametrize("what", RUNS)
def test_the_int8_tests_pass_without_amx(what: str, tmp_path: Path) -> None:
    if processors.VARIABLE in os.environ:
        pytest.skip("AMX is hidden from this process already")
    if "amx_int8" not in processors.host_features():
        pytest.skip("this processor has no AMX: the INT8 tests have run without it")
    environment = processors.environment(processors.WITHOUT_AMX)
    for name in [key for key in environment if key.startswith("PYTEST_")]:
        del environment[name]
    arguments, least = RUNS[what]
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 't'}",
    ]
    done = subprocess.run([*words, *arguments], cwd=TESTS, env=environment, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert passed is not None
    print(f"{what} on another processor, {processors.WITHOUT_AMX}: {passed[0]}")
    assert int(passed[1]) >= least

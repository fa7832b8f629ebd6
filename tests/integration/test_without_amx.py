"""The INT8 tests again, in processes that see this processor without AMX: what most x86 processors
are.

Every net of the registry and every pattern is built without AMX beside its own test
(``processors.same_labels``). Where this processor has no AMX, the tests themselves have run without
it, and these are skipped.
"""

import re
import subprocess
import sys
from pathlib import Path

import processors
import pytest
from paths import TESTS

pytestmark = pytest.mark.slow

# What to run, and how many tests at least.
RUNS = {
    "runtimes": (
        [
            "integration/test_int8_runtimes.py",
            "-k",
            "shipped_net_has or labels_are_the_same or rounds_where",
        ],
        16,
    ),
    "build": (["build/test_int8.py", "-k", "says_how or fragile_net or fastest_within"], 3),
    "guard and repairs": (
        [
            "quantize/test_label_change.py",
            "graph/passes/test_tiny_scales.py",
            "graph/passes/test_float_rounding.py",
        ],
        20,
    ),
}


@pytest.mark.parametrize("what", RUNS)
def test_the_int8_tests_pass_without_amx(what: str, tmp_path: Path) -> None:
    processors.skip_unless_amx_can_be_hidden()
    environment = processors.environment(processors.WITHOUT_AMX)
    for name in [key for key in environment if key.startswith("PYTEST_")]:
        del environment[name]
    arguments, least = RUNS[what]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    words += [f"--basetemp={tmp_path / 'inner'}", *arguments]
    done = subprocess.run(words, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    print(f"{what} on another processor, {processors.WITHOUT_AMX}: {passed[0]}")
    assert int(passed[1]) >= least

"""Nothing that edgeseg imports or runs opens a connection or leaves an identifier."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

# Exports a net as users do (ONNX Runtime, onnxscript, onnxsim), builds it, opens it and runs it.
EVERYTHING = """
import sys
from pathlib import Path
import numpy as np, edgeseg, torch
from edgeseg.export.onnx_from_torch import export_module
from edgeseg.models import create
from edgeseg.spec import CAMVID_11, ModelSpec

folder = Path(sys.argv[1])
spec = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)
torch.manual_seed(0)
net = create("enet", 11).eval()
path = export_module(net, spec, folder / "n.onnx")
with edgeseg.load_engine(edgeseg.build_engine(path, out=folder / "n.engine")) as engine:
    assert engine(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96)
"""


def traced(folder: Path, code: str, *arguments: str) -> str:
    """Run Python code with a home of its own under strace; return the calls."""
    log = folder / "calls.txt"
    home = folder / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    for name in ("ORT_DISABLE_TELEMETRY", "OPENVINO_TELEMETRY_OPT_OUT"):
        environment.pop(name, None)
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=socket,connect,sendto"]
    done = subprocess.run(
        [*words, "-o", str(log), sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return log.read_text()


def left_behind(folder: Path) -> list[str]:
    """Return the files that a run left in its home and that are none of edgeseg's or of plots."""
    home = folder / "home"
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return [name for name in files if not re.match(r"\.cache/(edgeseg|matplotlib)/", name)]


@strace
def test_no_socket_is_opened_from_export_to_a_label(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    calls = traced(tmp_path, EVERYTHING, str(tmp_path))
    assert not [line for line in calls.splitlines() if "AF_INET" in line]
    assert left_behind(tmp_path) == []


@strace
def test_without_the_switch_onnx_runtime_would_leave_an_identifier(tmp_path: Path) -> None:
    """The other test can fail: what it looks for is there without edgeseg."""
    traced(tmp_path, "import onnxruntime")
    if not left_behind(tmp_path):
        pytest.skip("this ONNX Runtime has no telemetry")


def test_the_switches_are_set_before_any_library_is_imported() -> None:
    code = (
        "import os, sys; import edgeseg; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "False"], done.stderr

"""Programs that edgeseg starts take no code from the current folder, and know edgeseg's own."""

import json
import os
import sys
from pathlib import Path

import pytest

from edgeseg.backends.openvino import runtime
from edgeseg.backends.openvino.extension import build as extension
from edgeseg.children import clean_environment, python_command, run_child
from edgeseg.errors import EngineError

TRAPS = ("numpy", "onnx", "openvino", "subprocess", "sitecustomize", "edgeseg")


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder full of modules that leave a mark; PYTHONPATH leads there as well."""
    runtime.library_version()  # this process has its modules already
    folder = tmp_path / "downloads"
    folder.mkdir()
    mark = tmp_path / "ran"
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "numpy.py"))
    monkeypatch.syspath_prepend("")
    monkeypatch.syspath_prepend(str(folder))
    return mark


def test_a_child_imports_what_is_installed(trapped: Path) -> None:
    code = "import json, numpy, onnx, edgeseg.files; print(json.dumps([numpy.__file__, "
    code += "edgeseg.__file__, __import__('os').getcwd(), sys.argv[1:]]))"
    done = run_child(python_command(code, "one", "--two"))
    assert done.returncode == 0, done.stderr

    numpy_file, package_file, folder, arguments = json.loads(done.stdout)
    assert not trapped.exists()
    assert numpy_file == sys.modules["numpy"].__file__
    assert package_file == sys.modules["edgeseg"].__file__
    assert folder == "/"
    assert arguments == ["one", "--two"]


def test_the_trial_of_the_extension_imports_what_is_installed(
    trapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that writes no library: the trial starts, imports everything, and refuses it."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho no > "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv(extension.SWITCH, "1")
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match=r"trying the CPU extension failed.*\.so"):
        extension.library()
    assert not trapped.exists()
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_childs_environment_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("BASH_ENV", "/x")
    monkeypatch.setenv("EDGESEG_ANYTHING", "kept")
    monkeypatch.setenv("LD_PRELOAD", "")
    kept = clean_environment()
    assert kept["EDGESEG_ANYTHING"] == "kept"
    assert "LD_PRELOAD" in kept
    assert not {"PYTHONPATH", "BASH_ENV"} & kept.keys()
    assert kept["PATH"] == os.environ["PATH"]

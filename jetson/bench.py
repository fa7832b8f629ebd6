"""Measure engines on a Jetson by one protocol: fixed power mode and clocks, several runs, watts.

Every run cools down, warms up, and takes the medians of ``edgeseg compare`` (engines in turns, on
the same frames). ``compare`` mixes engines, and decoding and scoring with them, so power per frame
is measured apart from it: each engine runs alone on decoded frames for some seconds, while the
board's power sensors are read (``edgeseg.profiling.power``).
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from board import Board, cool_down, full_clocks, power_mode, sudo_kept

from edgeseg.cli.spelling import as_options
from edgeseg.errors import EdgesegError, InputError, MissingDependencyError
from edgeseg.files import require_writable, write_json
from edgeseg.profiling.power import Found, PowerSampler, find_meters
from edgeseg.profiling.power.sampling import INTERVAL_S

KIND = "edgeseg jetson measurement"
FORMAT = 2
RESULTS = Path(__file__).resolve().parent / "results"
LOOP_FRAMES = 8


# -- one engine alone ------------------------------------------------------------------------------


def loop(engine: str, source: str, seconds: float) -> dict[str, float]:
    """Call an engine again and again on the first frames of a source.

    Return the time of the start and of the end, and the number of frames.
    """
    from edgeseg.profiling.entry import open_entry
    from edgeseg.video import open_source

    with contextlib.closing(open_source(source)) as opened:
        frames = [frame.image for frame in itertools.islice(opened, LOOP_FRAMES)]
    call = open_entry(engine).engine
    for image in frames:
        call(image)
    count = 0
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds or not count:
        call(frames[count % len(frames)])
        count += 1
    return {"start_s": start, "end_s": now, "frames": count}


def _loop_apart(engine: str, source: str, seconds: float) -> dict[str, float]:
    """Run ``loop`` in a process of its own, so that engines do not share memory."""
    command = [
        sys.executable,
        __file__,
        "--loop",
        engine,
        "--data",
        source,
        "--seconds",
        str(seconds),
    ]
    found: dict[str, float] = json.loads(_checked(command, f"{engine}: cannot be run"))
    return found


def _checked(command: list[str], what: str) -> str:
    """Run a part of this program and return its output.

    Raise ``EdgesegError`` with the message of its error.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise EdgesegError(
            what, got=lines[-1].removeprefix("error: ") if lines else f"exit code {done.returncode}"
        )
    return done.stdout


# -- runs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Hold what to measure, and the numbers of the protocol.

    Attributes
    ----------
    engines : the engines.
    data : address of the frames.
    runs : number of runs.
    rounds : rounds of timing per run.
    seconds : seconds that each engine runs alone.
    warm_up_s : seconds of warm-up.
    cool_to_c : temperature to cool down to before a run, degrees Celsius.
    cool_patience_s : seconds to wait for that, at most.
    """

    engines: tuple[str, ...]
    data: str
    runs: int
    rounds: int
    seconds: float
    warm_up_s: float
    cool_to_c: float
    cool_patience_s: float


def measure(
    plan: Plan, board: Board, sampler: PowerSampler | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the results of all runs, in order."""
    return [_run(plan, board, sampler, number, say) for number in range(1, plan.runs + 1)]


def _run(
    plan: Plan, board: Board, sampler: PowerSampler | None, number: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the results of one run."""
    say(f"run {number} of {plan.runs}: cooling to {plan.cool_to_c:g} C")
    cooled = cool_down(board.hottest_c, plan.cool_to_c, plan.cool_patience_s)
    before = board.temperatures_c()
    idle = _idle(sampler)
    say(f"run {number} of {plan.runs}: warming up")
    _loop_apart(plan.engines[0], plan.data, plan.warm_up_s)
    say(f"run {number} of {plan.runs}: comparing")
    start = time.perf_counter()
    compared = _compare(plan)
    power = power_of(sampler, start, time.perf_counter()) if sampler else None
    engines = []
    for given, result in zip(plan.engines, compared["engines"], strict=True):
        say(f"run {number} of {plan.runs}: {result['id']} alone for {plan.seconds:g} s")
        kept = (
            "id",
            "precision",
            "target",
            "engine_sha256",
            "latency_ms_p50",
            "latency_ms_p95",
            "latency_ms_p99",
        )
        engines.append(
            {**{key: result[key] for key in kept}, "alone": _alone(given, plan, sampler)}
        )
    return {
        "cool_down": cooled,
        "temperatures_c_before": before,
        "temperatures_c_after": board.temperatures_c(),
        "idle": idle,
        "compare": {
            "power": power,
            "frames": compared["data"]["frames"],
            "protocol": compared["protocol"],
        },
        "engines": engines,
    }


def _idle(sampler: PowerSampler | None, seconds: float = 3.0) -> dict[str, Any] | None:
    """Return the power before the work."""
    if sampler is None:
        return None
    start = time.perf_counter()
    time.sleep(seconds)
    return power_of(sampler, start, time.perf_counter())


def _compare(plan: Plan) -> dict[str, Any]:
    """Return the figures of ``edgeseg compare`` for the engines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compare.json"
        command = [sys.executable, "-m", "edgeseg", "compare", *plan.engines, "--data", plan.data]
        _checked(
            [*command, "--rounds", str(plan.rounds), "--json", str(path)], "edgeseg compare failed"
        )
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def _alone(engine: str, plan: Plan, sampler: PowerSampler | None) -> dict[str, Any]:
    """Run one engine without a pause; return frames per second, and the energy per frame."""
    done = _loop_apart(engine, plan.data, plan.seconds)
    seconds = done["end_s"] - done["start_s"]
    frames = int(done["frames"])
    power = power_of(sampler, done["start_s"], done["end_s"]) if sampler else None
    energy = round(power["power_w_mean"] * seconds / frames * 1e3, 4) if power else None
    return {
        "frames": frames,
        "seconds": round(seconds, 4),
        "frames_per_s": round(frames / seconds, 3),
        "power": power,
        "energy_mj_per_frame": energy,
    }


def power_of(sampler: PowerSampler, start_s: float, end_s: float) -> dict[str, Any] | None:
    """Return the mean watts between two moments, of the whole and per rail; None if unknown."""
    total = sampler.total()
    power = None if total is None else total[0].between(start_s, end_s)
    if total is None or power is None:
        return None
    rails: dict[str, float] = {}
    for name, trace in sampler.rails().items():
        rail = trace.between(start_s, end_s)
        if rail is not None:
            rails[name.partition(":")[2]] = round(rail.watts_mean, 4)
    error = power.sampling_error_percent
    return {
        "power_w_mean": round(power.watts_mean, 4),
        "power_of": " + ".join(name.partition(":")[2] for name in total[1]),
        "rails_w_mean": rails,
        "samples": power.samples,
        "sampling_error_percent": None if error is None else round(error, 3),
    }


def _meters(board: Board) -> Found:
    """Return the power meters of a Jetson; none off a Jetson."""
    if not board.jetson:
        return Found((), {})
    found = find_meters(board.root)
    if not found.meters:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.missing.items())
        raise MissingDependencyError(
            "this Jetson has no power sensor that can be read",
            got=reasons,
            expected="an INA3221 in /sys/bus/i2c/drivers",
        )
    return found


def _power_facts(found: Found) -> list[dict[str, Any]] | str:
    """Return how power was measured, or why it was not."""
    if not found.meters:
        return "absent: not a Jetson (--anywhere)"
    return PowerSampler(found.whole()).describe()


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the medians over the runs, one entry per engine.

    A figure is ``None`` if it is missing in a run.
    """

    def median(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(statistics.median(known), 4) if len(known) == len(values) else None

    summary = []
    for place, first in enumerate(runs[0]["engines"]):
        mine = [run["engines"][place] for run in runs]
        powers = [e["alone"]["power"] for e in mine]
        summary.append(
            {
                "id": first["id"],
                "latency_ms_p50": median([e["latency_ms_p50"] for e in mine]),
                "frames_per_s": median([e["alone"]["frames_per_s"] for e in mine]),
                "power_w_mean": median([p["power_w_mean"] if p else None for p in powers]),
                "energy_mj_per_frame": median([e["alone"]["energy_mj_per_frame"] for e in mine]),
            }
        )
    return summary


# -- the command -----------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="jetson/bench.sh", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "engines", nargs="*", metavar="ENGINE", help="engine files, ONNX files or shipped nets"
    )
    parser.add_argument(
        "--data", required=True, metavar="SOURCE", help="frames: a video, a folder, synthetic://"
    )
    parser.add_argument(
        "--name", help="of the result: jetson/results/NAME.json (default: board and power mode)"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FOLDER", help="instead of jetson/results"
    )
    parser.add_argument(
        "--mode", type=int, metavar="N", help="set this power mode of nvpmodel; undone at the end"
    )
    parser.add_argument(
        "--clocks", choices=("on", "off"), default="on", help="jetson_clocks; undone at the end"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns an engine in each edgeseg compare"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="each engine alone, for its power"
    )
    parser.add_argument("--warm-up", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument(
        "--cool-to", type=float, default=50.0, metavar="CELSIUS", help="before each run"
    )
    parser.add_argument("--cool-patience", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument(
        "--anywhere", action="store_true", help="run off a Jetson, too: latency without power"
    )
    parser.add_argument("--loop", metavar="ENGINE", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def bench(given: argparse.Namespace, say: Callable[[str], None] = print) -> Path:
    """Measure, write the result, and return its path.

    Raise ``EdgesegError`` if the options do not fit the machine, or something cannot be measured.
    """
    board = Board()
    _require_measurable(given, board)
    found = _meters(board)
    plan = Plan(
        tuple(given.engines),
        given.data,
        given.runs,
        given.rounds,
        given.seconds,
        given.warm_up,
        given.cool_to,
        given.cool_patience,
    )

    # Measure at the wanted power mode and clocks.
    clocks = board.jetson and given.clocks == "on"
    with sudo_kept(board.jetson), power_mode(board, given.mode), full_clocks(clocks):
        mode = board.power_mode()
        path = Path(given.out) / f"{given.name or _slug(board, mode)}.json"
        require_writable(path)
        facts = {
            "kind": KIND,
            "format": FORMAT,
            "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": {**board.describe(), **_edgeseg_facts()},
            "power_mode": mode,
            "clocks": {"jetson_clocks": clocks, "shown": board.clocks()},
            "power": _power_facts(found),
            "protocol": _protocol(plan),
        }
        with PowerSampler(found.whole()) as sampler:
            runs = measure(plan, board, sampler if found.meters else None, say)

    write_json(path, {**facts, "runs": runs, "summary": summarise(runs)})
    return path


def _require_measurable(given: argparse.Namespace, board: Board) -> None:
    """Raise ``InputError`` if the options do not fit together, or not the machine."""
    if not given.engines:
        raise InputError(
            "nothing to measure", expected="at least one ENGINE", hint="See: jetson/bench.sh --help"
        )
    if given.runs < 1 or given.rounds < 1 or given.seconds <= 0:
        raise InputError(
            "no measurement", got=f"{given.runs} runs, {given.rounds} rounds, {given.seconds:g} s"
        )
    if not board.jetson and not given.anywhere:
        raise InputError(
            f"this is no Jetson: {board.root / 'etc' / 'nv_tegra_release'} is not there",
            hint="--anywhere measures latency without power.",
        )
    if not board.jetson and given.mode is not None:
        raise InputError(
            "power modes are a Jetson's", got=f"--mode {given.mode}", hint="Leave it out."
        )


def _protocol(plan: Plan) -> dict[str, Any]:
    """Return the numbers of the protocol, for the result."""
    return {
        "engines": list(plan.engines),
        "data": plan.data,
        "runs": plan.runs,
        "rounds": plan.rounds,
        "alone_s": plan.seconds,
        "warm_up_s": plan.warm_up_s,
        "power_interval_s": INTERVAL_S,
    }


def _edgeseg_facts() -> dict[str, Any]:
    """Return the facts of the machine and of the libraries."""
    from edgeseg.profiling.machine import describe_machine

    return describe_machine()


def _slug(board: Board, mode: dict[str, Any] | None) -> str:
    """Return the name of the result's file: the machine and its power mode."""
    model = board.describe()["model"] or os.uname().nodename
    text = f"{model} {mode['name'] if mode else ''}".lower().replace("nvidia", "")
    return "-".join(re.findall(r"[a-z0-9]+", text)) or "machine"


def _table(path: Path) -> str:
    """Return the summary of a result as a table to print."""
    lines = [f"{'engine':<32} {'ms':>9} {'FPS':>9} {'W':>8} {'mJ/frame':>10}"]
    for row in json.loads(path.read_bytes())["summary"]:
        keys = ("latency_ms_p50", "frames_per_s", "power_w_mean", "energy_mj_per_frame")
        ms, fps, watts, energy = ("-" if row[key] is None else f"{row[key]:.2f}" for key in keys)
        lines.append(f"{row['id']:<32} {ms:>9} {fps:>9} {watts:>8} {energy:>10}")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: clocks and power mode are restored
        signal.signal(number, interrupt)
    try:
        read = arguments(given)
        if read.loop:
            print(json.dumps(loop(read.loop, read.data, read.seconds)))
            return 0
        path = bench(read, say=lambda line: print(line, file=sys.stderr))
        print(_table(path))
        print(f"wrote {path}")
    except EdgesegError as error:
        print(f"error: {as_options(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

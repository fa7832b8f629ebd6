"""Open the engines that are profiled, and take each through its first calls."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine
from edgeseg.metrics.evaluate import evaluate
from edgeseg.profiling import timing
from edgeseg.profiling.engine_file import find_file
from edgeseg.profiling.engine_record import EngineFacts, Start
from edgeseg.profiling.entry import Entry, identify, open_entry, split_precision
from edgeseg.profiling.machine_state import resident_bytes
from edgeseg.profiling.workload import Workload
from edgeseg.reporter import Reporter
from edgeseg.types import Image


@dataclass
class Subject:
    """Hold an engine that is measured, and its figures so far.

    Attributes
    ----------
    id : NAME@PRECISION, unique within the measurement.
    engine : the engine.
    file : its file; None if it is not known.
    facts : what identifies it.
    start : what its start costs.
    miou : mean IoU (0..1); None without labelled data.
    stages : seconds of (preprocess, network, postprocess) of some calls.
    missing : why a figure is missing, by its name.
    """

    id: str
    engine: Engine
    file: Path | None
    facts: EngineFacts
    start: Start
    miou: float | None = None
    stages: list[tuple[float, float, float]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def open_all(
    engines: Sequence[Engine | str | Path | Entry], opened: ExitStack, reporter: Reporter
) -> list[Subject]:
    """Open engines, and time the opening of those that are not open yet.

    Parameters
    ----------
    engines : names, files, or engines.
    opened : closes the engines that are opened here.
    reporter : receives messages.

    Raises
    ------
    EdgesegError : an engine cannot be opened.
    """
    entries: list[Entry] = []
    files: list[Path | None] = []
    costs: list[tuple[float | None, int | None]] = []
    for given in engines:
        if isinstance(given, Entry | Engine):
            entry = given if isinstance(given, Entry) else open_entry(given)
            entries.append(entry)
            files.append(find_file(entry.engine.passport))
            costs.append((None, None))
            continue

        # The first opening may build the engine; the second one, from its file, is timed.
        reporter.info(f"opening {given}")
        entry = open_entry(given)
        name = Path(split_precision(str(given))[0])
        is_file = name.suffix.lower() == ".engine"
        file = name if is_file else find_file(entry.engine.passport)
        if file is not None:
            entry.engine.close()
            memory = resident_bytes()
            begin_s = time.perf_counter()
            entry = Entry(load_engine(file), entry.size_bytes)
            spent = (time.perf_counter() - begin_s) * 1e3
            now = resident_bytes()
            grown = None if memory is None or now is None else max(0, now - memory)
            costs.append((spent, grown))
        else:
            costs.append((None, None))
        opened.enter_context(entry.engine)
        entries.append(entry)
        files.append(file)

    subjects: list[Subject] = []
    for key, entry, file, (open_ms, grown) in zip(
        identify(entries), entries, files, costs, strict=True
    ):
        start = Start(
            open_ms=open_ms,
            first_frame_ms=0,
            warm_up_calls=0,
            warm_up_s=0,
            settled=False,
            memory_bytes=grown,
        )
        facts = EngineFacts.of(key, entry.engine.passport, entry.size_bytes)
        subjects.append(Subject(key, entry.engine, file, facts, start))
    return subjects


def first_calls(subject: Subject, frames: Sequence[Image], reporter: Reporter) -> None:
    """Time the first frame of an engine, and warm it up.

    Parameters
    ----------
    subject : the engine; its ``start`` is completed.
    frames : (H, W, 3) uint8 BGR.
    reporter : receives a warning if times do not settle.
    """
    start = time.perf_counter()
    subject.engine(frames[0])
    first_ms = (time.perf_counter() - start) * 1e3
    warm = timing.warm_up(subject.engine, frames)
    if not warm.settled:
        reporter.warning(f"{subject.id}: times did not settle in {timing.LIMIT_S:g} s of warm-up")
    subject.start = subject.start.model_copy(
        update={
            "first_frame_ms": first_ms,
            "warm_up_calls": warm.calls,
            "warm_up_s": warm.seconds,
            "settled": warm.settled,
        }
    )


def score(subject: Subject, work: Workload, reporter: Reporter) -> None:
    """Compute the mIoU of an engine if the data is labelled.

    Parameters
    ----------
    subject : the engine; its ``miou`` is set.
    work : the data.
    reporter : receives progress.

    Raises
    ------
    DataError : the data has other classes.
    """
    if work.labelled is None:
        return
    scores = evaluate(subject.engine, work.labelled, indices=work.indices, reporter=reporter)
    subject.miou = float(scores.mean_iou)

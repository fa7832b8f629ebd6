"""Check engines for regressions in a pytest run: options and fixtures of pytest.

The plugin is found by pytest wherever edgeseg is installed. It imports nothing but pytest until a
fixture of its own is used. A project may define fixtures of the same names; they replace these.

Options (each has an ini setting: ``edgeseg_engines``, ``edgeseg_data``, ...):

- ``--edgeseg-engine=ENGINE``: an engine; repeat it. The first is the reference, the last the engine
  under test. Write ``=``: pytest takes a path that stands alone for tests, before it knows options
  of plugins.
- ``--edgeseg-data=DATA``: labelled data, or a video. By default that of the baseline.
- ``--edgeseg-baseline=FILE``: a comparison that ``edgeseg compare`` saved with ``--json``.
- ``--edgeseg-frames=N``: number of frames, evenly spread. By default that of the baseline.

Fixtures: ``engine``, ``scores`` and ``assert_no_regression``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.profiling.comparison import Comparison

Check = Callable[..., None]

_ROUNDS = 1  # of the latency, which nothing here checks


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini settings.

    Parameters
    ----------
    parser : pytest's parser.
    """
    group = parser.getgroup("edgeseg", "regressions of segmentation engines")
    group.addoption(
        "--edgeseg-engine",
        action="append",
        metavar="ENGINE",
        help="engine file, ONNX file or shipped model, NAME@PRECISION; repeat it: the first is the "
        "reference, the last the engine under test",
    )
    group.addoption(
        "--edgeseg-data", metavar="DATA", help="data to score on: camvid:PATH, synthetic://, ..."
    )
    group.addoption("--edgeseg-split", metavar="SPLIT", help="split of the data (val)")
    group.addoption(
        "--edgeseg-baseline", metavar="FILE", help="comparison saved by edgeseg compare --json"
    )
    group.addoption("--edgeseg-frames", type=int, metavar="N", help="number of frames")

    parser.addini("edgeseg_engines", "engines, one a line; see --edgeseg-engine", type="linelist")
    for name in ("data", "split", "baseline", "frames"):
        parser.addini(f"edgeseg_{name}", f"see --edgeseg-{name}")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Open the engine under test: the last of ``--edgeseg-engine``.

    Parameters
    ----------
    request : pytest's request.
    """
    from edgeseg.errors import EdgesegError
    from edgeseg.profiling.entry import open_entry

    try:
        opened = open_entry(_engine_names(request.config)[-1]).engine
    except EdgesegError as error:
        raise pytest.UsageError(str(error)) from error
    with opened:
        yield opened


@pytest.fixture(scope="session")
def scores(request: pytest.FixtureRequest) -> Comparison:
    """Score all engines on the data, once per run of pytest.

    Parameters
    ----------
    request : pytest's request.
    """
    from edgeseg.commands import compare
    from edgeseg.errors import EdgesegError

    config = request.config
    saved = _saved(config)
    facts = {} if saved is None else saved["data"]
    data = _setting(config, "data") or facts.get("address")
    if not data:
        raise pytest.UsageError("no data to score on: give --edgeseg-data=DATA or a baseline of it")
    frames = _setting(config, "frames") or facts.get("frames")

    try:
        return compare(
            _engine_names(config),
            str(data),
            split=str(_setting(config, "split") or facts.get("split") or "val"),
            frames=None if frames is None else int(frames),
            rounds=_ROUNDS,
        )
    except EdgesegError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def assert_no_regression(request: pytest.FixtureRequest, scores: Comparison) -> Check:
    """Return a function that fails the test if an engine lost accuracy.

    With a baseline, every engine is compared with its own saved scores. Without one, the engines
    are compared with the first of them. A regression is a change beyond the tolerance and beyond
    its confidence interval over frames. A gain over the baseline fails, too: find its reason, and
    save a new baseline.

    Parameters
    ----------
    request : pytest's request.
    scores : the fixture.

    Examples
    --------
    A test, run with ``pytest --edgeseg-baseline=baseline.json --edgeseg-engine=net.onnx``:

    >>> def test_accuracy(assert_no_regression):
    ...     assert_no_regression(max_drop=0.5)
    """

    def check(max_drop: float = 0.5, min_agreement: float | None = None) -> None:
        __tracebackhide__ = True
        from edgeseg.errors import EdgesegError
        from edgeseg.profiling.regression import check_against, check_against_first

        saved = _saved(request.config)
        if saved is None and len(scores.results) < 2:
            raise pytest.UsageError(
                "nothing to compare with: give --edgeseg-baseline=FILE, or a second "
                "--edgeseg-engine"
            )
        try:
            if saved is None:
                problems = check_against_first(scores, max_drop=max_drop)
            else:
                problems = check_against(saved, scores, max_drop=max_drop)
        except EdgesegError as error:
            raise pytest.UsageError(str(error)) from error

        problems += _other_labels(scores, min_agreement)
        if problems:
            lines = "\n".join(f"  {line}" for line in problems)
            pytest.fail(f"accuracy changed on {_where(scores)}:\n{lines}", pytrace=False)

    return check


def _other_labels(scores: Comparison, least: float | None) -> list[str]:
    """Return a line per engine that labels too few pixels as the first one does."""
    if least is None:
        return []
    if len(scores.results) < 2:
        raise pytest.UsageError("min_agreement is with the first engine: give a second one")
    lines: list[str] = []
    for row in scores.results[1:]:
        if row.agreement < least:
            share = f"{100 * row.agreement:.2f} % of the labels are those of {scores.reference.id}"
            lines.append(f"{row.id}: {share}, less than {100 * least:g} %")
    return lines


def _where(scores: Comparison) -> str:
    """Return the data in words."""
    return f"{scores.data.name}, {scores.data.frames} frames"


def _engine_names(config: pytest.Config) -> list[str]:
    """Return the given engines; raise an error of usage if there is none."""
    names = config.getoption("--edgeseg-engine") or config.getini("edgeseg_engines")
    if not names:
        raise pytest.UsageError(
            "no engine: give --edgeseg-engine=ENGINE, or set edgeseg_engines in pytest's settings"
        )
    return list(names)


def _setting(config: pytest.Config, name: str) -> Any:
    """Return an option, or else the ini setting of the same name; ``None`` without both."""
    return config.getoption(f"--edgeseg-{name}") or config.getini(f"edgeseg_{name}") or None


def _saved(config: pytest.Config) -> dict[str, Any] | None:
    """Return the saved comparison; a relative path is relative to the folder of pytest's settings.

    A path of the command line is relative to where pytest was started.
    """
    from edgeseg.errors import EdgesegError
    from edgeseg.profiling.regression import read_baseline

    given = config.getoption("--edgeseg-baseline")
    if given:
        path = config.invocation_params.dir / given
    elif config.getini("edgeseg_baseline"):
        path = config.rootpath / str(config.getini("edgeseg_baseline"))
    else:
        return None
    try:
        return read_baseline(Path(path))
    except EdgesegError as error:
        raise pytest.UsageError(str(error)) from error

"""Long runs: parts, change of the last against the first, drift."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.profiling.power import Trace
from edgeseg.profiling.power_figures import Metered, engine_power
from edgeseg.profiling.soak import parse_duration, soak_of
from edgeseg.profiling.timing import Timed

NO_POWER = Metered(None, {}, [], {})


def run_of(seconds: float, first_s: float, last_s: float) -> Timed:
    """Calls that slow down evenly from ``first_s`` to ``last_s``."""
    timed = Timed()
    now = 100.0
    while now < 100 + seconds:
        spent = first_s + (last_s - first_s) * (now - 100) / seconds
        timed.starts_s.append(now)
        timed.ends_s.append(now + spent)
        now += spent
    timed.turns.append((100.0, timed.ends_s[-1]))
    return timed


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("45", 45), ("1.5min", 90)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "-5s", "half an hour", "30 d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InputError, match="no duration"):
        parse_duration(text)


def test_drift_and_change_of_a_run_that_slows_down() -> None:
    soak = soak_of(run_of(600, 0.100, 0.120), NO_POWER, [])
    assert len(soak.minutes) == 10
    # Minute 1 has its median at 5 % of the run, the last one at 95 %.
    assert soak.change_percent == pytest.approx(100 * (0.119 / 0.101 - 1), abs=0.2)
    assert soak.drift_percent_per_hour == pytest.approx(100 * 6 * 0.02 / 0.101, rel=0.02)
    assert soak.minutes[0].temperature_c is soak.minutes[0].watts is None


def test_states_and_power_are_joined_by_time() -> None:
    timed = run_of(60, 0.1, 0.1)
    states = [
        {"at_s": 100.0 + second, "temperatures_c": {"tj": 40.0 + second}, "cpu_mhz": [2000.0]}
        for second in range(60)
    ]
    trace = Trace(np.arange(99.0, 162.0), np.arange(99.0, 162.0) - 90)
    metered = Metered((trace, ("all",)), {"all": trace}, [], {})
    soak = soak_of(timed, metered, states)
    assert len(soak.minutes) == 6
    first, last = soak.minutes[0], soak.minutes[-1]
    assert first.temperature_c == pytest.approx(50, abs=1)
    assert last.temperature_c == pytest.approx(99, abs=1)
    assert first.watts == pytest.approx(15, abs=0.2)
    assert last.watts == pytest.approx(65, abs=0.2)
    assert first.cpu_mhz == 2000


def test_energy_counts_turns_and_not_what_is_between() -> None:
    """10 W in the engine's turns, 99 W in the other engine's."""
    timed = Timed(turns=[(0.0, 1.0), (2.0, 3.0)])
    for start in (0.0, 0.25, 0.5, 0.75, 2.0, 2.25, 2.5, 2.75):
        timed.starts_s.append(start)
        timed.ends_s.append(start + 0.25)
    times = np.arange(0, 3.0001, 0.05)
    own = (times <= 1.0001) | (times > 1.9999)
    trace = Trace(times, np.where(own, 10.0, 99.0))
    power = engine_power(timed, Metered((trace, ("all",)), {"all": trace}, [], {}), 4.0, miou=0.5)
    assert power is not None
    assert power.gross_w == pytest.approx(10)
    assert power.net_w == pytest.approx(6)
    assert power.gross_mj_per_frame == pytest.approx(2500)
    assert power.net_mj_per_frame == pytest.approx(1500)
    assert power.frame_mj_p50 == pytest.approx(2500)
    assert power.miou_per_joule == pytest.approx(0.2)
    assert power.rails_w == {"all": pytest.approx(10)}
    assert engine_power(timed, NO_POWER, None) is None

"""Check the summary of a run: percentiles of durations, and values that JSON can hold."""

import json

import numpy as np
import pytest

from edgeseg.video.summary import Percentiles, Samples, Summary


def test_percentiles_are_those_of_numpy_in_milliseconds() -> None:
    durations = np.random.default_rng(0).gamma(2.0, 0.01, 500)
    samples = Samples()
    for seconds in durations:
        samples.add(float(seconds))

    found = samples.percentiles_ms()
    expected = np.percentile(durations * 1e3, (50, 95, 99))
    assert (found.p50, found.p95, found.p99) == pytest.approx(tuple(expected))


def test_one_duration_is_every_percentile() -> None:
    samples = Samples()
    samples.add(0.25)
    assert samples.percentiles_ms() == Percentiles(250.0, 250.0, 250.0)


def test_a_full_reservoir_counts_on_and_keeps_its_size() -> None:
    samples = Samples(capacity=10)
    for _ in range(1000):
        samples.add(0.002)
    assert len(samples) == 1000
    assert samples.percentiles_ms() == Percentiles(2.0, 2.0, 2.0)


def test_a_summary_is_plain_values() -> None:
    latency_ms = {"read": Percentiles(1.0, 2.0, 3.0)}
    summary = Summary(5, 4, 1, 2.0, 2.0, latency_ms, "max_frames")

    facts = summary.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["latency_ms"] == {"read": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}
    assert facts["stopped"] == "max_frames"

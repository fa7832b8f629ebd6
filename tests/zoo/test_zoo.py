"""The net that ships: the same as its checkpoint, as good as its card says, on synthetic frames and
on real ones.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import processors
import pytest
from paths import ROOT

from edgeseg.backends.openvino import runtime
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.data import open_dataset
from edgeseg.imaging.preprocess import resize_labels, to_input
from edgeseg.metrics.evaluate import evaluate
from edgeseg.zoo import ZOO, zoo, zoo_int8

CHECKPOINTS = ROOT / "engines"
# Of labels between engine and checkpoint. A file of FP16 weights rounds once more where
# normalisation was folded in.
SAME_LABELS = {"enet-camvid": 0.9999, "segnet-light-camvid": 0.999}
LEAST_MIOU = {"enet-camvid": 0.66, "segnet-light-camvid": 0.70}
CARD_BAND = 0.1  # points of mIoU that another processor may give
NETS = pytest.mark.parametrize("name", sorted(zoo()))


def torch_labels(name: str, images: list[np.ndarray]) -> list[np.ndarray]:
    torch = pytest.importorskip("torch")
    from edgeseg.models.checkpoint import load_checkpoint
    from edgeseg.training.segmenter import enlarged

    net, spec, _ = load_checkpoint(CHECKPOINTS / f"{name}.pt")
    with torch.inference_mode():
        logits = (
            enlarged(net(torch.from_numpy(to_input(i, spec))), spec.input_size) for i in images
        )
        labels = (one.argmax(1)[0].to(torch.uint8).numpy() for one in logits)
        return [resize_labels(one, i.shape[:2]) for one, i in zip(labels, images, strict=True)]


def agreement(name: str, images: list[np.ndarray]) -> float:
    """Share of pixels on which the FP32 engine and PyTorch agree."""
    engine = resolve_engine(name, precision="fp32")
    same = [
        (engine(i) == want).mean()
        for i, want in zip(images, torch_labels(name, images), strict=True)
    ]
    return float(np.mean(same))


@NETS
def test_every_net_has_a_card_of_this_very_file(name: str) -> None:
    card = (ZOO / f"{name}.md").read_text(encoding="utf-8")
    assert hashlib.sha256(zoo()[name].read_bytes()).hexdigest() in card
    quantized = zoo_int8(name)
    assert quantized is None or hashlib.sha256(quantized.read_bytes()).hexdigest() in card
    for heading in ("## Data", "## Terms", "## Recipe", "## Scores"):
        assert heading in card


@NETS
def test_engine_is_the_checkpoint_on_synthetic_frames(name: str) -> None:
    data = open_dataset("synthetic://?length=4&size=480x360", "test")
    assert agreement(name, [data[i].image for i in range(len(data))]) >= SAME_LABELS[name]


@NETS
def test_engine_is_the_checkpoint_on_real_frames(camvid_root: Path, name: str) -> None:
    data = open_dataset(f"camvid:{camvid_root}", "val")
    assert agreement(name, [data[i].image for i in range(0, len(data), 20)]) >= SAME_LABELS[name]


@pytest.mark.slow
@NETS
def test_scores_of_the_card(camvid_root: Path, name: str) -> None:
    """In FP32, too, where that is fast or asked for: a minute for SegNet.

    The card's second decimal is that of the processor it names.
    """
    data = open_dataset(f"camvid:{camvid_root}", "val")
    card = (ZOO / f"{name}.md").read_text(encoding="utf-8")
    told = dict[str, float]()
    for precision in ("fp32", "bf16", "int8"):
        row = re.search(rf"\| {precision} \| ([\d.]+) \|", card)
        assert row is not None, precision
        told[precision] = float(row[1])
    has_bf16 = "BF16" in runtime.device().features
    scores = {}
    for precision in ("fp32", "bf16", "int8"):
        slow = (
            precision == "fp32"
            and name == "segnet-light-camvid"
            and has_bf16
            and not os.environ.get("EDGESEG_SLOW")
        )
        if slow or (precision == "bf16" and not has_bf16):
            continue
        scores[precision] = evaluate(resolve_engine(name, precision=precision), data).mean_iou
        assert abs(100 * scores[precision] - told[precision]) <= CARD_BAND, (
            precision,
            processors.name(),
        )
    full = scores.get("fp32", scores.get("bf16"))
    assert full is not None
    assert full >= LEAST_MIOU[name]
    assert abs(scores.get("bf16", full) - full) <= 0.003
    assert full - scores["int8"] <= 0.003


@NETS
def test_int8_labels_as_float_does(name: str) -> None:
    data = open_dataset("synthetic://?length=12&size=480x360", "test")
    full, quantized = (resolve_engine(name, precision=p) for p in ("fp32", "int8"))
    assert quantized.passport.precision == "int8"
    assert (
        np.mean(
            [(full(data[i].image) == quantized(data[i].image)).mean() for i in range(len(data))]
        )
        >= 0.97
    )


def test_auto_is_the_fastest_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    first = resolve_engine("enet-camvid").passport
    (race,) = tmp_path.glob("*.race.json")
    times = json.loads(race.read_text())
    assert (
        times["faster"] == min(times["latency_ms"], key=times["latency_ms"].get) == first.precision
    )
    race.write_text(json.dumps({"faster": "int8", "latency_ms": {}}))
    assert resolve_engine("enet-camvid").passport.precision == "int8"  # not measured again
    race.write_text("damaged")
    assert resolve_engine("enet-camvid").passport.precision in ("fp32", "bf16", "int8")


@NETS
def test_the_net_sees_the_synthetic_street(name: str) -> None:
    """Trained on real frames only, it must still find its way in the generated ones."""
    data = open_dataset("synthetic://?length=12&size=480x360", "test")
    assert evaluate(resolve_engine(name), data).pixel_accuracy > 0.7

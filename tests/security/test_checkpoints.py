"""Checkpoints are data: nothing in them runs, and damaged ones are refused."""

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import create  # noqa: E402
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from edgeseg.models.weight_file import read_weights, require_whole  # noqa: E402
from edgeseg.spec import CAMVID_11, ModelSpec  # noqa: E402

SPEC = ModelSpec(architecture="enet", input_size=(64, 96), stride=8, labels=CAMVID_11)


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    return save_checkpoint(path, create("enet", 11), SPEC, {"miou": 0.5})


def test_a_damaged_checkpoint_is_refused_or_the_same(saved: Path, tmp_path: Path) -> None:
    """100 flipped bits, nearly all of them in weights: torch alone loads most of these."""
    data = saved.read_bytes()
    whole = load_checkpoint(saved)[0].state_dict()
    draw = random.Random(0)
    refused = 0
    for number in range(100):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{number}.pt"
        path.write_bytes(bytes(damaged))
        try:
            state = load_checkpoint(path)[0].state_dict()
        except InputError:
            refused += 1
            continue
        assert all(torch.equal(state[name], whole[name]) for name in whole)
    assert refused > 70


def rewritten(path: Path, folder: Path, **changes: Any) -> Path:
    """The same checkpoint with other values, and right checksums."""
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save(content, folder / "other.pt")
    return folder / "other.pt"


def test_other_weights_or_another_spec_do_not_have_the_digest(saved: Path, tmp_path: Path) -> None:
    state = torch.load(saved, weights_only=True)["state"]
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = state[name] + 1
    spec = SPEC.replace(mean=(0.1, 0.2, 0.3)).to_json()
    for changes in ({"state": state}, {"spec": spec}, {"sha256": None}):
        with pytest.raises(InputError, match="have changed since it was written"):
            load_checkpoint(rewritten(saved, tmp_path, **changes))


def test_checkpoints_of_the_first_format_still_load(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path, format="edgeseg-checkpoint-1", sha256=None)
    assert load_checkpoint(path)[1] == SPEC


def test_weights_that_are_not_numbers_are_named(saved: Path, tmp_path: Path) -> None:
    state = torch.load(saved, weights_only=True)["state"]
    name = next(name for name, value in state.items() if value.ndim == 4)
    state[name][0] = float("nan")
    with pytest.raises(InputError, match=f"tensor '{name}' has weights that are not numbers"):
        load_checkpoint(rewritten(saved, tmp_path, state=state))


@pytest.mark.parametrize("key", ["spec", "state", "notes"])
@pytest.mark.parametrize("value", [None, 3, [1]])
def test_missing_parts_are_one_line(saved: Path, tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"the checkpoint is damaged: got no {key}"):
        load_checkpoint(rewritten(saved, tmp_path, **{key: value}))


def test_no_reader_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state": Code(tmp_path / "made")}, path)
    with pytest.raises(pickle.UnpicklingError):
        read_weights(path)
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_a_run_is_resumed_from_data_alone(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from edgeseg.training.fit import WholeFiles

    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "callbacks": Code(tmp_path / "made")}, path)
    with pytest.raises(InputError, match="is no checkpoint to go on with") as caught:
        WholeFiles().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "made").exists()
    assert "\n" not in str(caught.value)

    torch.save({"epoch": 3, "weight": torch.ones(2)}, path)
    assert WholeFiles().load_checkpoint(path)["epoch"] == 3


def test_compressed_parts_are_refused_before_they_unfold(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("archive/data.pkl", bytes(50 << 20))
    with pytest.raises(InputError, match=r"wrong bytes in archive/data\.pkl"):
        require_whole(path)


def test_a_file_before_pytorch_1_6_passes(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(nn.Linear(1, 1).state_dict(), path, _use_new_zipfile_serialization=False)
    assert read_weights(path).keys() == {"weight", "bias"}

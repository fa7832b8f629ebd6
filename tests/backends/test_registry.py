"""The targets there are, and the one that ``auto`` means."""

import pytest

from edgeseg.backends import registry
from edgeseg.errors import InputError

RTX = "tensorrt-rtx"


def test_the_targets_have_their_names() -> None:
    assert list(registry.BACKENDS) == ["cpu", "tensorrt", RTX]
    for name, backend in registry.BACKENDS.items():
        assert backend.name == name
        assert registry.find_backend(name) is backend


@pytest.mark.parametrize(
    ("gpu", "installed", "chosen", "wanted"),
    [
        (False, [RTX], None, "cpu"),
        (True, [], None, "cpu"),
        (True, [RTX], None, RTX),
        (True, ["tensorrt", RTX], None, "tensorrt"),
        (True, [RTX], "cpu", "cpu"),
        (False, [], RTX, RTX),
    ],
)
def test_auto_is_tensorrt_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    installed: list[str],
    chosen: str | None,
    wanted: str,
) -> None:
    monkeypatch.setattr(registry, "has_gpu", lambda: gpu)
    monkeypatch.setattr(registry, "is_installed", lambda name: name in installed)
    monkeypatch.delenv(registry.CHOICE, raising=False)
    if chosen:
        monkeypatch.setenv(registry.CHOICE, chosen)
    assert registry.find_backend("auto").name == wanted
    assert registry.find_backend("cpu").name == "cpu"


def test_an_unknown_choice_of_target_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.CHOICE, "tpu")
    with pytest.raises(InputError, match=r"unknown target: got 'tpu'.*\$EDGESEG_TARGET says so"):
        registry.find_backend("auto")

"""Any PyTorch segmentation module of a user's, by name: ``package.module:factory`` and what the factory takes."""

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError, MissingDependencyError

_WRAPPED = ("state_dict", "model_state_dict", "model", "state")  # where training scripts put the weights in a file
_PREFIXES = ("module.", "model.", "net.", "_orig_mod.")


class LogitsOnly(nn.Module):
    """A module that gives its scores alone: torchvision's give a dict, others a tuple with auxiliary heads."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        if isinstance(out, Mapping):
            out = out["out"] if "out" in out else out["logits"] if "logits" in out else next(iter(out.values()))
        elif isinstance(out, (tuple, list)):
            out = out[0]
        return cast(Tensor, out)


def is_factory(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:factory`` rather than that of a file."""
    module, colon, factory = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *factory.split(".")))


def build_module(name: str, arguments: Mapping[str, Any], weights: Path | None = None) -> LogitsOnly:
    """Call the factory ``name`` with ``arguments`` and load ``weights``; the module, in evaluation mode.

    Raises ``InputError`` or ``MissingDependencyError`` with what is wrong: the name, an argument, the weights.
    """
    where, _, attribute = name.partition(":")
    try:
        with _current_folder_first():
            factory: Any = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise InputError(
                "no such Python module", got=repr(where), hint="Is it installed, or beside you?"
            ) from error
        raise MissingDependencyError(f"{where} needs {error.name}, which is not installed") from error
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise InputError(f"{where} has no {attribute}", got=repr(name), expected="package.module:factory")
        factory = getattr(factory, part)
    try:
        net = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not take these arguments",
            got=str(error).splitlines()[0],
            hint="Give each as --arg NAME=VALUE.",
        ) from error
    except OSError as error:  # factories fetch pretrained weights
        raise InputError(
            f"{name} cannot be made",
            got=str(error).splitlines()[0],
            hint="If it wants to download weights, tell it not to (--arg weights=None --arg weights_backbone=None), "
            "and give them with --weights.",
        ) from error
    if not isinstance(net, nn.Module):
        raise InputError(f"{name} makes no torch.nn.Module", got=type(net).__name__)
    if weights is not None:
        _load(net, weights)
    return LogitsOnly(net).eval()


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Modules beside the user are found, as ``python -m`` finds them."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def parse_arguments(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` -> values: as JSON where it is (numbers, ``true``, ``null``), ``None`` for None, else text."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError("not an argument", got=repr(text), expected="NAME=VALUE, such as num_classes=21")
        try:
            values[name] = {"None": None, "True": True, "False": False}[value] if value.istitle() else json.loads(value)
        except (KeyError, ValueError):
            values[name] = value
    return values


def _load(net: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise InputError("no such weight file", got=repr(str(path)))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: not a PyTorch state dict",
            got=type(error).__name__,
            hint="Save it with torch.save(net.state_dict()).",
        ) from error
    for key in _WRAPPED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: not a PyTorch state dict", got=type(content).__name__)
    ours = net.state_dict()
    candidates = [content, *({k.removeprefix(p): v for k, v in content.items()} for p in _PREFIXES)]
    state = max(candidates, key=lambda c: len(c.keys() & ours.keys()))
    # Auxiliary heads are a training matter: weights of one that this net was built without are left out.
    state = {k: v for k, v in state.items() if k in ours or not k.startswith(("aux", "auxiliary"))}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit the net", got=str(error).splitlines()[-1].strip()) from error

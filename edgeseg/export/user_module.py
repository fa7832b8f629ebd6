"""Build a user's PyTorch module by name: ``package.module:factory``, and its arguments."""

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.models.weight_file import read_weights

# Keys under which training scripts store the state dict in a file.
_WRAPPED = ("state_dict", "model_state_dict", "model", "state")

# Prefixes that wrappers add to the names of parameters, such as DataParallel and torch.compile.
_PREFIXES = ("module.", "model.", "net.", "_orig_mod.")

# Words that people type in Python's spelling; JSON has its own.
_PYTHON_WORDS = {"None": None, "True": True, "False": False}


class LogitsOnly(nn.Module):
    """Wrap a module so that it returns its logits alone.

    torchvision's models return a dict, others return a tuple with auxiliary heads.

    Parameters
    ----------
    net : the module.

    Examples
    --------
    >>> import torch
    >>> class WithAuxiliary(nn.Module):
    ...     def forward(self, x):
    ...         return {"out": x, "aux": None}
    >>> LogitsOnly(WithAuxiliary())(torch.zeros(1, 2, 4, 4)).shape
    torch.Size([1, 2, 4, 4])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: the entry ``out``, ``logits``, or the first one."""
        out = self.net(x)
        if isinstance(out, Mapping):
            if "out" in out:
                out = out["out"]
            elif "logits" in out:
                out = out["logits"]
            else:
                out = next(iter(out.values()))
        elif isinstance(out, (tuple, list)):
            out = out[0]
        return cast(Tensor, out)


def is_factory(name: str) -> bool:
    """Return whether a name has the form ``package.module:factory``, not that of a file.

    Parameters
    ----------
    name : the name.

    Examples
    --------
    >>> is_factory("torchvision.models.segmentation:fcn_resnet50")
    True
    >>> is_factory("runs/enet/best.pt")
    False
    """
    module, colon, factory = name.partition(":")
    parts = [*module.split("."), *factory.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def build_module(
    name: str,
    arguments: Mapping[str, Any],
    weights: Path | None = None,
) -> LogitsOnly:
    """Call a factory, and load weights into the module that it returns.

    Parameters
    ----------
    name : the factory, as ``package.module:factory``.
    arguments : its keyword arguments.
    weights : a file with a state dict; None to keep the weights that the factory sets.

    Returns
    -------
    The module in evaluation mode.

    Raises
    ------
    InputError : the name, an argument or the weights are wrong.
    MissingDependencyError : the factory's module imports a package that is not installed.

    Examples
    --------
    >>> import torch
    >>> module = build_module("torch.nn:Linear", {"in_features": 4, "out_features": 2})
    >>> module(torch.zeros(1, 4)).shape
    torch.Size([1, 2])
    """
    factory = _import_factory(name)
    net = _call_factory(name, factory, arguments)
    if weights is not None:
        _load(net, weights)
    return LogitsOnly(net).eval()


def _import_factory(name: str) -> Any:
    """Return the object that ``package.module:factory`` names."""
    where, _, attribute = name.partition(":")
    try:
        with _current_folder_first():
            factory: Any = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise InputError(
                "no such Python module",
                got=repr(where),
                hint="Is it installed, or in the current folder?",
            ) from error
        raise MissingDependencyError(
            f"{where} needs {error.name}, which is not installed"
        ) from error

    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise InputError(
                f"{where} has no {attribute}", got=repr(name), expected="package.module:factory"
            )
        factory = getattr(factory, part)
    return factory


def _call_factory(name: str, factory: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the module that ``factory`` makes of ``arguments``; ``name`` is for messages."""
    try:
        net = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not take these arguments",
            got=str(error).splitlines()[0],
            hint="Give each one as `arguments` NAME=VALUE.",
        ) from error
    except OSError as error:  # factories fetch pretrained weights
        raise InputError(
            f"{name} cannot be made",
            got=str(error).splitlines()[0],
            hint="If it downloads weights, turn that off with `arguments` weights=None and "
            "`arguments` weights_backbone=None, and give a file of weights as `weights`.",
        ) from error

    if not isinstance(net, nn.Module):
        raise InputError(f"{name} makes no torch.nn.Module", got=type(net).__name__)
    return net


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Make modules in the current folder importable inside the block, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def parse_arguments(given: list[str]) -> dict[str, Any]:
    """Read arguments of the form ``NAME=VALUE``.

    A value that is JSON is read as JSON: numbers, ``true``, ``null``. ``None``, ``True`` and
    ``False`` are read as Python's. Anything else is text.

    Parameters
    ----------
    given : the arguments.

    Raises
    ------
    InputError : an argument does not have that form.

    Examples
    --------
    >>> parse_arguments(["num_classes=21", "weights=None", "encoder=resnet34"])
    {'num_classes': 21, 'weights': None, 'encoder': 'resnet34'}
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(
                "not an argument", got=repr(text), expected="NAME=VALUE, such as num_classes=21"
            )
        values[name] = _parse_value(value)
    return values


def _parse_value(text: str) -> Any:
    """Return the value that ``text`` stands for: a word of Python, JSON, or the text itself."""
    if text.istitle():
        return _PYTHON_WORDS.get(text, text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _load(net: nn.Module, path: Path) -> None:
    """Load the state dict in a file into ``net``; raise ``InputError`` if it does not fit."""
    state = _read_state(path)
    ours = net.state_dict()

    # Drop the prefix of a wrapper: take the names that have most in common with the module's.
    candidates = [state]
    for prefix in _PREFIXES:
        candidates.append({name.removeprefix(prefix): value for name, value in state.items()})
    state = max(candidates, key=lambda candidate: len(candidate.keys() & ours.keys()))

    # Auxiliary heads matter in training only: leave out the weights of a head that this module
    # lacks.
    fitting: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in ours or not name.startswith(("aux", "auxiliary")):
            fitting[name] = value

    try:
        net.load_state_dict(fitting)
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: its weights do not fit the net", got=problem) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file, also from one in which a training script wrapped it."""
    if not path.is_file():
        raise InputError("no such weight file", got=repr(str(path)))
    try:
        content = read_weights(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: not a PyTorch state dict",
            got=type(error).__name__,
            hint="Save it with torch.save(net.state_dict()).",
        ) from error

    # Unwrap.
    for key in _WRAPPED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break

    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise InputError(f"{path}: not a PyTorch state dict", got=type(content).__name__)
    return content

"""Show the fields of a dataclass as options of a command: groups of options.

Several commands can share a group, and a command with many options receives a few values.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

from typer.models import ParameterInfo


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Show the fields of option groups as options of a command.

    A parameter whose type is a dataclass is a group. typer sees one option per field in its place;
    the command receives the dataclass. If the dataclass has a class variable ``HELP_PANEL``, the
    help shows its options in a panel of that title.

    Annotations must be types, because a string does not tell that it names a dataclass: a module
    with commands or groups cannot use ``from __future__ import annotations``.

    Parameters
    ----------
    command : the function of a command, before typer registers it.

    Raises
    ------
    TypeError : an annotation is a string, or a field of a group has a ``default_factory``, which
        typer cannot use.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Camera:
    ...     size: str = "360x480"
    ...     fps: int = 30
    >>> @option_groups
    ... def show(name: str, camera: Camera) -> None:
    ...     print(name, camera.fps)
    >>> list(inspect.signature(show).parameters)
    ['name', 'size', 'fps']
    >>> show(name="front", size="720x960", fps=25)
    front 25
    """
    groups: dict[str, Any] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        _require_type(parameter.annotation, f"{command.__qualname__}: parameter `{parameter.name}`")
        if dataclasses.is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            shown += _fields_as_parameters(parameter.annotation)
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        built = _build_groups(groups, given)
        command(**given, **built)

    # typer reads the signature, and the annotations apart from it.
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call


def _build_groups(groups: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Build each group from its values, and remove these from ``given``."""
    built: dict[str, Any] = {}
    for name, group in groups.items():
        values = {field.name: given.pop(field.name) for field in dataclasses.fields(group)}
        built[name] = group(**values)
    return built


def _fields_as_parameters(group: Any) -> list[inspect.Parameter]:
    """Return one keyword parameter per field of a dataclass, with its type and its default."""
    panel: str | None = getattr(group, "HELP_PANEL", None)
    parameters: list[inspect.Parameter] = []
    for field in dataclasses.fields(group):
        where = f"{group.__qualname__}: field `{field.name}`"
        _require_type(field.type, where)
        if field.default_factory is not dataclasses.MISSING:
            raise TypeError(
                f"{where}: typer cannot use a default_factory, and would make the option required; "
                "give a plain default such as None"
            )

        is_required = field.default is dataclasses.MISSING
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if is_required else field.default,
                annotation=field.type if panel is None else _in_panel(field.type, panel),
            )
        )
    return parameters


def _require_type(annotation: object, where: str) -> None:
    """Raise ``TypeError`` if an annotation is a string: a group would not be found."""
    if isinstance(annotation, str):
        raise TypeError(
            f"{where}: the annotation is a string: got {annotation!r}, expected the type itself; "
            "remove the quotes, or `from __future__ import annotations`"
        )


def _in_panel(annotation: Any, panel: str) -> Any:
    """Return the type of an option with its help in a panel, unless the option has another one."""
    if get_origin(annotation) is not Annotated:
        return annotation

    kind, *details = get_args(annotation)
    placed: list[Any] = []
    for detail in details:
        is_option = isinstance(detail, ParameterInfo)
        if is_option and detail.rich_help_panel is None:
            detail = copy.copy(detail)  # other groups may share the option
            detail.rich_help_panel = panel
        placed.append(detail)

    annotated: Any = Annotated
    parts = (kind, *placed)
    return annotated[parts]

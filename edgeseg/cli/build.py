"""``build-engine``: from an ONNX file to an engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import (
    Precision,
    PrecisionOption,
    Target,
    app,
    escape,
    spec_flags,
    stdout,
    tell_assumed,
    waiting,
)

if TYPE_CHECKING:
    from edgeseg.export.network import Overrides


@app.command("build-engine")
@spec_flags
def build_engine(
    onnx: Annotated[Path, typer.Argument(help="An ONNX file.")],
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The .engine file to write.")] = None,
    *,
    overrides: "Overrides",
) -> None:
    """Compile an ONNX file for a target: frame in, label map out. Writes the engine and its passport."""
    from edgeseg.artifact import Passport
    from edgeseg.runtime import build_engine as build

    with waiting(f"compiling {onnx}"):
        path = build(onnx, precision=precision.value, target=target, out=out, overrides=overrides)
    passport = Passport.read(path)
    tell_assumed(passport.assumed)
    height, width = passport.spec.input_size
    stdout().print(
        f"wrote {escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB; {passport.precision} for {passport.target}, "
        f"{height}x{width}, {len(passport.spec.labels)} classes; {passport.build_seconds:.1f} s)",
        soft_wrap=True,
    )

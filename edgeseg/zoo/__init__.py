"""The nets that ship with edgeseg: ONNX files, their quantized forms, and a card for each."""

from pathlib import Path

ZOO = Path(__file__).resolve().parent
_INT8 = ".int8"  # NAME.int8.onnx is NAME.onnx quantized


def zoo() -> dict[str, Path]:
    """The nets that ship with edgeseg, by name."""
    return {path.stem: path for path in sorted(ZOO.glob("*.onnx")) if not path.stem.endswith(_INT8)}


def zoo_int8(name: str) -> Path | None:
    """The quantized file of a net that ships, if there is one."""
    path = ZOO / f"{name}{_INT8}.onnx"
    return path if path.is_file() else None

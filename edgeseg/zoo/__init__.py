"""The models that ship with edgeseg: ONNX files, their quantized forms, a card for each."""

from pathlib import Path

ZOO = Path(__file__).resolve().parent
_INT8 = ".int8"  # NAME.int8.onnx is NAME.onnx quantized


def zoo() -> dict[str, Path]:
    """Return the files of the models that ship with edgeseg, by name.

    Examples
    --------
    >>> list(zoo())
    ['enet-camvid', 'segnet-light-camvid']
    """
    return {path.stem: path for path in sorted(ZOO.glob("*.onnx")) if not path.stem.endswith(_INT8)}


def zoo_int8(name: str) -> Path | None:
    """Return the quantized file of a model that ships; None if there is none.

    Parameters
    ----------
    name : name of the model, such as ``enet-camvid``.

    Examples
    --------
    >>> zoo_int8("enet-camvid").name
    'enet-camvid.int8.onnx'
    """
    path = ZOO / f"{name}{_INT8}.onnx"
    return path if path.is_file() else None

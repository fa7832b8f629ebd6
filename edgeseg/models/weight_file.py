"""Read files of PyTorch without running code from them, and check that they are not damaged."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.errors import InputError


def read_weights(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote, as data alone.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    InputError : a part of the file is damaged.
    Exception : torch cannot read it, or it holds more than data; the caller says what it wanted.
    """
    require_whole(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def require_whole(path: Path) -> None:
    """Raise an error if a file of ``torch.save`` is damaged; torch itself checks no checksum.

    Parameters
    ----------
    path : the file. One in the format before PyTorch 1.6, which is no zip archive, has no
        checksums and passes.

    Raises
    ------
    InputError : the bytes of a part do not have their checksum, or a part is compressed, as torch
        writes none.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            packed = [p.filename for p in parts.infolist() if p.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0] if packed else parts.testzip()
    except zipfile.BadZipFile as error:
        if not zipfile.is_zipfile(path):
            return
        damaged = str(error)
    except (NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        damaged = str(error)
    if damaged is not None:
        raise InputError(
            f"{path}: the file is damaged",
            got=f"wrong bytes in {damaged}",
            hint="Copy it again, or take an earlier checkpoint.",
        )


def state_digest(state: dict[str, Tensor], *texts: str) -> str:
    """Return the SHA-256 of weights and texts, in hex.

    Parameters
    ----------
    state : tensors by name.
    texts : what else belongs to them, such as the spec.

    Examples
    --------
    >>> one = state_digest({"w": torch.ones(2)}, "spec")
    >>> one == state_digest({"w": torch.ones(2)}, "spec")
    True
    >>> one == state_digest({"w": torch.ones(2)}, "another")
    False
    """
    digest = hashlib.sha256()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        facts = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(facts.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    digest.update(json.dumps(texts).encode())
    return digest.hexdigest()

"""Keep what TensorRT-RTX compiles when it opens a plan, so that it is compiled once.

A plan of TensorRT-RTX is finished on the GPU that runs it: each execution context compiles its
kernels. A runtime cache lets the contexts of an engine share them, and a file beside the engine
keeps them for the next start.
"""

import contextlib
from pathlib import Path
from typing import Any

from edgeseg.errors import OutputError
from edgeseg.files import write_bytes


def cache_path(engine: Path) -> Path:
    """Return the path of the runtime cache of an engine file.

    Parameters
    ----------
    engine : path of the engine file.

    Examples
    --------
    >>> cache_path(Path("enet.fp16.tensorrt-rtx.engine")).name
    'enet.fp16.tensorrt-rtx.runtime_cache'
    """
    return engine.with_suffix(".runtime_cache")


class RuntimeCache:
    """Hold the runtime cache of an engine, and its file.

    TensorRT-RTX refuses a file of another GPU, driver or version. Such a file is replaced.

    Parameters
    ----------
    config : TensorRT's runtime configuration, which is given the cache.
    path : the file; ``None`` to keep the cache in memory only.
    """

    def __init__(self, config: Any, path: Path | None) -> None:
        self._path = path
        self._written = b""
        self._cache = config.create_runtime_cache()

        if path is not None:
            data = b""
            with contextlib.suppress(OSError):
                data = path.read_bytes()
            if data and self._cache.deserialize(data):
                self._written = data
        config.set_runtime_cache(self._cache)

    def write(self) -> None:
        """Write the file if something was compiled since it was read or written.

        If the folder cannot be written, the kernels are compiled again at the next start.
        """
        if self._path is None:
            return
        memory = self._cache.serialize()
        data = b"" if memory is None else bytes(memoryview(memory))
        if not data or data == self._written:
            return
        with contextlib.suppress(OutputError, OSError):
            write_bytes(self._path, data)
            self._written = data

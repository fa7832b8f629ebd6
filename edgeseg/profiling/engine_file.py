"""Find the file of an engine that is open."""

from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.files import cache_folder
from edgeseg.passport import Passport


def find_file(passport: Passport) -> Path | None:
    """Return the cached engine file with a passport; ``None`` if there is none.

    Parameters
    ----------
    passport : the engine's passport.
    """
    try:
        for path in cache_folder().glob(f"{passport.name}*.engine"):
            if Passport.read(path).engine_sha256 == passport.engine_sha256:
                return path
    except (OSError, EdgesegError):
        pass  # a damaged cache must not stop the measurement of an engine that is open
    return None

"""Passports: the JSON file beside an engine that describes it.

A passport names the ONNX file, spec, target, precision, library and device that an engine was built
for. With it, edgeseg refuses an engine that is out of date or from another machine, in plain words.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeseg.errors import EngineError
from edgeseg.spec import ModelSpec, first_problem


class Passport(BaseModel):
    """Describe an engine.

    Attributes
    ----------
    format : version of the passport's own format.
    name : the engine's name.
    target : ``cpu``, ``tensorrt`` or ``tensorrt-rtx``.
    precision : ``fp32``, ``bf16``, ``fp16``, ``int8`` or ``mixed``.
    spec : the contract of input and output.
    onnx_sha256 : hash of the ONNX file that the engine was built from.
    engine_sha256 : hash of the engine's bytes.
    edgeseg : version of edgeseg that built it.
    library, library_version : the inference library; must be the same where the engine runs.
    device : the device; must be the same where the engine runs.
    device_features : features of the device that the engine depends on.
    settings : settings of the build.
    form : which of several equal forms of the graph was built, and what was measured to choose it.
    int8 : how a quantized engine was made: the calibration set with the hashes of its frames, the
        method, the layers in float and why. Empty for other engines.
    proof : how the engine was compared with its ONNX file when it was built.
    assumed : facts of the spec that were assumed, since the ONNX file did not have them.
    build_seconds : duration of the build.
    built_at : time of the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    name: str
    target: str
    precision: str
    spec: ModelSpec
    onnx_sha256: str
    engine_sha256: str
    edgeseg: str
    library: str
    library_version: str
    device: str
    device_features: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    form: dict[str, str] = {}
    int8: dict[str, Any] = {}
    proof: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()
    build_seconds: float
    built_at: str

    @staticmethod
    def path_for(engine: Path) -> Path:
        """Return the path of an engine's passport.

        Parameters
        ----------
        engine : path of the engine.

        Examples
        --------
        >>> Passport.path_for(Path("enet.cpu.engine")).name
        'enet.cpu.engine.json'
        """
        return engine.with_name(engine.name + ".json")

    @classmethod
    def read(cls, engine: Path) -> "Passport":
        """Read the passport beside an engine.

        Parameters
        ----------
        engine : path of the engine.

        Raises
        ------
        EngineError : the passport is missing or damaged.
        """
        path = cls.path_for(engine)
        rebuild = "Build it again: `build_engine(NAME.onnx)`"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise EngineError(f"{engine}: has no passport", expected=f"{path.name} beside it", hint=rebuild) from None
        except (OSError, ValidationError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise EngineError(f"{path}: the passport cannot be read", got=problem, hint=rebuild) from error

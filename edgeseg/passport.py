"""Passports: the JSON file beside an engine that describes it.

A passport names the ONNX file, spec, target, precision, library and device that an engine was built
for. With it, edgeseg refuses an engine that is out of date or from another machine, in plain words.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgeseg.errors import EngineError
from edgeseg.facts import Int8Facts, OpenVinoFacts, TensorRTFacts
from edgeseg.files import sha256_file
from edgeseg.spec import ModelSpec, first_problem

FORMAT = 3  # formats 1 and 2 have no digest of the passport itself
_DIGEST = "passport_sha256"  # key of the JSON: the digest of everything else in it


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
    facts : how the library compiled it.
    int8 : how an INT8 engine was made.
    proof : how the engine was compared with its ONNX file when it was built.
    assumed : facts of the spec that were assumed, since the ONNX file did not have them.
    build_seconds : duration of the build.
    built_at : time of the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
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
    facts: OpenVinoFacts | TensorRTFacts = TensorRTFacts()
    int8: Int8Facts = Int8Facts()
    proof: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()
    build_seconds: float
    built_at: str

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, values: Any) -> Any:
        """Return the values of an older passport as they are written today."""
        if not isinstance(values, dict):
            return values

        version = values.get("format", FORMAT)
        if isinstance(version, int) and version > FORMAT:
            raise ValueError("was written by a newer edgeseg")
        if version == 1:
            return _from_format_1(values)
        if version == 2:
            return {**values, "format": FORMAT}
        return values

    @model_serializer(mode="wrap")
    def _with_digest(
        self, to_dict: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Return the values; if they become JSON, with their digest."""
        values: dict[str, Any] = to_dict(self)
        if info.mode == "json":
            values[_DIGEST] = _digest_of(values)
        return values

    @property
    def sha256(self) -> str:
        """Return the digest of everything but the engine's bytes, which an engine can hold."""
        values = self.model_dump(mode="json")
        return _digest_of({**values, "engine_sha256": ""})

    @property
    def openvino(self) -> OpenVinoFacts:
        """Return how OpenVINO compiled the engine; raise ``EngineError`` if it did not."""
        if not isinstance(self.facts, OpenVinoFacts):
            raise EngineError(f"{self.name}: is not an OpenVINO engine", got=self.target)
        return self.facts

    @property
    def tensorrt(self) -> TensorRTFacts:
        """Return how TensorRT compiled the plan; raise ``EngineError`` if it did not."""
        if not isinstance(self.facts, TensorRTFacts):
            raise EngineError(f"{self.name}: is not a TensorRT plan", got=self.target)
        return self.facts

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
        return cls.read_with_digest(engine)[0]

    @classmethod
    def read_with_digest(cls, engine: Path) -> "tuple[Passport, str]":
        """Read the passport beside an engine, and return what ``sha256`` was when it was written.

        Parameters
        ----------
        engine : path of the engine.

        Returns
        -------
        The passport and the digest. The digest is computed from the file, so that it stays what it
        was if later versions of edgeseg add facts.

        Raises
        ------
        EngineError : the passport is missing or damaged.
        """
        _finish_commit(engine)
        path = cls.path_for(engine)
        rebuild = "Build it again: `build_engine(NAME.onnx)`"
        try:
            return cls.parse(path.read_bytes())
        except FileNotFoundError:
            raise EngineError(
                f"{engine}: has no passport", expected=f"{path.name} beside it", hint=rebuild
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise EngineError(
                f"{path}: the passport cannot be read", got=problem, hint=rebuild
            ) from error

    @classmethod
    def parse(cls, text: bytes) -> "tuple[Passport, str]":
        """Read a passport from JSON, and check its digest.

        Parameters
        ----------
        text : the JSON.

        Returns
        -------
        The passport, and what ``sha256`` was when it was written.

        Raises
        ------
        ValueError : not a passport, or its digest is missing or wrong.
        """
        values = json.loads(text)
        if isinstance(values, dict) and values.get("format") not in (1, 2):
            _check_digest(values)
            del values[_DIGEST]

        passport = cls.model_validate_json(json.dumps(values))
        return passport, _digest_of({**values, "engine_sha256": ""})

    @staticmethod
    def next_path_for(engine: Path) -> Path:
        """Return where the passport of the next engine waits until that engine has its name.

        Parameters
        ----------
        engine : path of the engine.

        Examples
        --------
        >>> Passport.next_path_for(Path("enet.cpu.engine")).name
        '.enet.cpu.engine.json.next'
        """
        return engine.with_name(f".{engine.name}.json.next")


def commit(temporary: Path, engine: Path, passport: Passport) -> None:
    """Give a finished engine its name, together with its passport.

    The passport is written beside the old one first. Then the engine is renamed: from this moment
    on, the new passport counts. A process that ends before leaves the old pair, one that ends after
    leaves the new pair: ``Passport.read`` finds out which by the engine's digest.

    Parameters
    ----------
    temporary : the finished engine file, in the folder of ``engine``.
    engine : its name.
    passport : its passport.

    Raises
    ------
    OSError : a file cannot be written or renamed.
    """
    text = (passport.model_dump_json(indent=2) + "\n").encode()
    waiting = Passport.next_path_for(engine)
    try:
        waiting.write_bytes(text)
        os.replace(temporary, engine)
    except OSError:
        waiting.unlink(missing_ok=True)
        raise

    try:
        os.replace(waiting, Passport.path_for(engine))
    except FileNotFoundError:  # another process has finished this, or builds the same engine
        Passport.path_for(engine).write_bytes(text)


def _finish_commit(engine: Path) -> None:
    """Give a waiting passport its name if its engine has one already; see ``commit``."""
    waiting = Passport.next_path_for(engine)
    with suppress(OSError, ValueError):
        if not waiting.is_file():
            return
        if Passport.parse(waiting.read_bytes())[0].engine_sha256 == sha256_file(engine):
            os.replace(waiting, Passport.path_for(engine))


def _digest_of(values: dict[str, Any]) -> str:
    """Return the digest of the values of a passport, in hex, without the digest itself."""
    rest = {key: value for key, value in values.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_digest(values: dict[str, Any]) -> None:
    """Raise ``ValueError`` if the values of a passport are not those that were written."""
    version = values.get("format", FORMAT)
    if isinstance(version, int) and version > FORMAT:
        raise ValueError("was written by a newer edgeseg")
    if values.get(_DIGEST) != _digest_of(values):
        raise ValueError("it was changed after it was written: its digest is another")


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return a passport of format 1 in format 2.

    Format 1 had texts only, in two dictionaries: ``settings`` and ``form``.
    """
    upgraded = {key: value for key, value in values.items() if key not in ("settings", "form")}
    upgraded["format"] = FORMAT
    settings = values.get("settings", {})
    form = values.get("form", {})
    if not isinstance(settings, dict) or not isinstance(form, dict):
        raise ValueError("settings and form are not tables of texts")

    if values.get("target") == "cpu":
        prefix = "latency_ms_"
        times = {
            key.removeprefix(prefix): value for key, value in form.items() if key.startswith(prefix)
        }
        upgraded["facts"] = {
            **{key: value for key, value in form.items() if not key.startswith(prefix)},
            "config": settings,
            "rounded_in_float": _split(form.get("rounded_in_float", ""), ", "),
            "latency_ms": times,
        }
        return upgraded

    facts = {key: value for key, value in {**settings, **form}.items() if value != ""}
    facts["version_compatible"] = settings.get("version_compatible") == "yes"
    facts["warnings"] = _split(settings.get("warnings", ""), "; ")
    facts["fp32_nodes"] = _split(form.get("fp32_nodes", ""), ", ")
    if "batch" in facts:
        facts["batch"] = facts["batch"].split(":")
    if "sizes" in facts:
        facts["sizes"] = [size.split("x") for size in facts["sizes"].split(":")]
    upgraded["facts"] = facts
    return upgraded


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of a text; none if it is empty."""
    return text.split(separator) if text else []

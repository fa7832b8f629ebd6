"""Implement the cpu target with OpenVINO.

Precision is a compile hint for the float parts; everything else is in the graph.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeseg.backends.base import NATIVE, Backend, Built, PlanOptions
from edgeseg.backends.engine import Engine
from edgeseg.backends.openvino import forms, probes, runtime
from edgeseg.backends.openvino.compiled import INT8_KERNELS, check_settings, settings
from edgeseg.backends.openvino.engine import OpenVinoEngine, pack, seal, seal_of
from edgeseg.backends.openvino.extension import build as extension
from edgeseg.backends.proof import Reference
from edgeseg.errors import EdgesegError, EngineError, InputError
from edgeseg.graph.network import Network
from edgeseg.passport import Passport
from edgeseg.reporter import Reporter
from edgeseg.types import Image

TARGET = "cpu"
LIBRARY = "openvino"
FORMS = "forms 2"  # increase it when the forms change: engines in the cache are then built again


class OpenVinoBackend(Backend):
    """Build and open engines that run on the processor, with OpenVINO.

    Examples
    --------
    >>> OpenVinoBackend().check_precision("fp32")
    'fp32'
    """

    name = TARGET
    floats = runtime.FLOATS

    def sealed(self, data: bytes, digest: str) -> bytes:
        """Return an engine's bytes with the digest of its passport at their end."""
        return seal(data, digest)

    def seal_of(self, data: bytes) -> str:
        """Return the digest that ``sealed`` put into an engine's bytes; ``""`` if there is none."""
        return seal_of(data)

    def best_precision(self) -> str:
        """Return ``bf16`` if the processor computes it natively, else ``fp32``."""
        return runtime.best_precision()

    def check_precision(self, precision: str) -> str:
        """Return the precision to build with; raise ``InputError`` if this processor lacks it."""
        if precision == "bf16" and "BF16" not in runtime.device().features:
            raise InputError(
                "this processor does not compute in bf16",
                got=runtime.device().name,
                expected="AVX512_BF16 or AMX",
                hint="Build with `precision=fp32`.",
            )
        return super().check_precision(precision)

    def compile(
        self,
        network: Network,
        precision: str,
        final: Path,
        options: PlanOptions,
        frames: Iterable[Image] | None,
        reporter: Reporter,
        known: Reference | None = None,
    ) -> Built:
        """Compile ``network`` in the fastest form that labels as the ONNX file does.

        ``Backend.compile`` describes the parameters. The bytes hold one graph that returns labels
        and, if the network has logits, a second one that returns them.
        """
        config = settings(precision)
        if INT8_KERNELS in config:
            reporter.info(
                "INT8 is not exact on this processor (no VNNI), so the quantized net is computed "
                "in float: the labels of other targets, no faster than `precision=fp32`"
            )

        chosen = forms.choose(network, precision, options.unpool, known, reporter)
        config = settings(precision, chosen.form.floats)

        # The same form once more, with logits as its output.
        logits = None
        if network.form != "labels":
            logits = forms.compile_form(
                forms.named(network), chosen.form, precision, logits=True
            ).blob()

        proof: dict[str, Any] = {}
        if chosen.verdict is not None and known is not None:
            proof = known.to_dict() | chosen.verdict.to_dict()

        name, features = runtime.device()
        return Built(
            data=pack(chosen.compiled.blob(), logits),
            library=LIBRARY,
            library_version=runtime.library_version(),
            device=name,
            device_features=features,
            facts=forms.facts(chosen, config),
            proof=proof,
        )

    def fingerprint(self) -> tuple[str, ...]:
        """Return the facts of this machine that an engine depends on.

        These are OpenVINO's version, the processor, and the CPU extension.
        """
        unpool = NATIVE if extension.why_not() else extension.identity()
        return (
            runtime.library_version(),
            *runtime.device().features,
            runtime.device().name,
            unpool,
            f"exact INT8: {probes.int8_is_exact()}",
            f"signed INT8: {probes.signed_int8_is_exact()}",
            FORMS,
        )

    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise ``EngineError`` if the engine does not fit this OpenVINO or this processor.

        ``Backend.check`` describes the parameters.
        """
        check_settings(passport.openvino.config, path, rebuild)
        version = runtime.library_version()
        if passport.library_version != version:
            raise EngineError(
                f"{path}: was built with another OpenVINO",
                got=passport.library_version,
                expected=version,
                hint=rebuild,
            )

        name, features = runtime.device()
        missing = sorted(set(passport.device_features) - set(features))

        # OpenVINO does not list VNNI, which engines that run INT8 kernels need.
        is_quantized = passport.precision not in runtime.FLOATS
        runs_int8 = is_quantized and INT8_KERNELS not in passport.openvino.config
        if not missing and runs_int8 and not probes.int8_is_exact():
            missing = ["VNNI"]

        if missing:
            raise EngineError(
                f"{path}: was built for {passport.device}, and this processor lacks "
                f"{', '.join(missing)}",
                got=name,
                hint=rebuild,
            )

    def open(self, passport: Passport, data: bytes, path: Path | None = None) -> Engine:
        """Return an engine that is ready to run, from the content of its file."""
        prepare_to_open(passport)
        return OpenVinoEngine(passport, data)


def prepare_to_open(passport: Passport) -> None:
    """Load edgeseg's CPU extension if the engine was built with it.

    Parameters
    ----------
    passport : the engine's passport.

    Raises
    ------
    EngineError : the engine needs the extension, which cannot be built or loaded here.
    """
    if passport.openvino.unpool != forms.EXTENSION:
        return

    try:
        extension.load()
    except EdgesegError as error:
        raise EngineError(
            f"{passport.name}: was built with edgeseg's CPU extension, which is not here",
            got=str(error.got or error),
            hint="Install a C++ compiler; or build it again: `build_engine(NAME.onnx, "
            "unpool=native)`.",
        ) from error

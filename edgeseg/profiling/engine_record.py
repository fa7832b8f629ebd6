"""Define what the file of a measurement holds about one engine: a part of ``results``."""

from pydantic import BaseModel, ConfigDict

from edgeseg.passport import Passport


class Record(BaseModel):
    """Base of all parts of a result: unknown fields are an error, so that none is lost silently."""

    model_config = ConfigDict(extra="forbid")


class EngineFacts(Record):
    """Identify an engine.

    Attributes
    ----------
    id : NAME@PRECISION, unique within the result.
    name, precision, target : of the passport.
    input_size : (H, W).
    onnx_sha256, engine_sha256 : hashes of the ONNX file and of the engine.
    library, library_version : what runs the engine.
    calibration_digest : digest of the calibration set; None for a float engine.
    size_bytes : size of the engine file; None if the file is not known.
    """

    id: str
    name: str
    precision: str
    target: str
    input_size: tuple[int, int]
    onnx_sha256: str
    engine_sha256: str
    library: str
    library_version: str
    calibration_digest: str | None = None
    size_bytes: int | None = None

    @classmethod
    def of(cls, key: str, passport: Passport, size_bytes: int | None) -> "EngineFacts":
        """Return the facts of an engine.

        Parameters
        ----------
        key : its id.
        passport : its passport.
        size_bytes : size of its file; None if the file is not known.
        """
        digest = passport.int8.calibration.get("digest")
        return cls(
            id=key,
            name=passport.name,
            precision=passport.precision,
            target=passport.target,
            input_size=passport.spec.input_size,
            onnx_sha256=passport.onnx_sha256,
            engine_sha256=passport.engine_sha256,
            library=passport.library,
            library_version=passport.library_version,
            calibration_digest=None if digest is None else str(digest),
            size_bytes=size_bytes,
        )


class LatencyFigures(Record):
    """Hold the latency of an engine, from a decoded frame to its label map.

    Attributes
    ----------
    ms_p50, ms_p90, ms_p95, ms_p99, ms_min, ms_max, ms_mean : milliseconds.
    calls : number of timed calls.
    histogram_edges_ms, histogram_counts : the distribution up to the 99th percentile; the last
        count holds everything above.
    """

    ms_p50: float
    ms_p90: float
    ms_p95: float
    ms_p99: float
    ms_min: float
    ms_max: float
    ms_mean: float
    calls: int
    histogram_edges_ms: list[float] = []
    histogram_counts: list[int] = []


class Stages(Record):
    """Hold median milliseconds of the stages of a frame.

    Attributes
    ----------
    preprocess_ms : resizing of the frame. Normalization is part of the network's graph.
    network_ms : the network, from a frame of its input size to labels of that size.
    postprocess_ms : resizing of the labels. The argmax is part of the network's graph.
    """

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float


class ThroughputRow(Record):
    """Hold frames per second with some frames in flight.

    Attributes
    ----------
    in_flight : number of frames that are worked on at a time.
    frames_per_s : frames per second.
    frames : number of frames.
    how : requests and streams.
    """

    in_flight: int
    frames_per_s: float
    frames: int
    how: str


class Start(Record):
    """Hold what the start of an engine costs.

    Attributes
    ----------
    open_ms : from the file to an engine that is ready; the library is loaded already.
    first_frame_ms : the first call.
    warm_up_calls, warm_up_s, settled : the warm-up; ``settled`` is False if times still changed.
    memory_bytes : growth of the process in RAM.
    """

    open_ms: float | None = None
    first_frame_ms: float
    warm_up_calls: int
    warm_up_s: float
    settled: bool
    memory_bytes: int | None = None


class EnginePower(Record):
    """Hold the power of the machine while an engine runs.

    Attributes
    ----------
    gross_w : mean watts.
    net_w : the same less the idle power; None without an idle measurement.
    gross_mj_per_frame, net_mj_per_frame : energy of a frame.
    frame_mj_p50, frame_mj_p95 : energy of single calls, joined with the samples by time.
    sampling_error_percent : change of the energy if every second sample is left out.
    samples : number of samples.
    miou_per_joule : mIoU (0..1) of the engine per joule of one frame; None without scores.
    rails_w : mean watts of every rail.
    """

    gross_w: float
    net_w: float | None
    gross_mj_per_frame: float
    net_mj_per_frame: float | None
    frame_mj_p50: float
    frame_mj_p95: float
    sampling_error_percent: float | None
    samples: int
    miou_per_joule: float | None = None
    rails_w: dict[str, float] = {}


class LayerRow(Record):
    """Describe a layer as the library runs it.

    Attributes
    ----------
    name, kind, kernel, precision : as the library names them.
    ms : mean milliseconds of a call.
    multiply_adds : multiply-adds for one frame.
    bytes : bytes of its inputs, weights and outputs.
    bound : ``memory`` or ``arithmetic``; None if the limits were not measured.
    of_limit : share (0..1) of the speed that the limits allow; above 1 if data stays in caches.
    """

    name: str
    kind: str
    kernel: str
    precision: str
    ms: float
    multiply_adds: int
    bytes: int
    bound: str | None = None
    of_limit: float | None = None


class LayerTable(Record):
    """Hold the layers of an engine.

    Attributes
    ----------
    rows : the layers, in the order in which they run.
    graph_ms : mean time of a call, by the clock, with counters on.
    layers_ms : sum of the layers.
    calls : number of calls.
    """

    rows: list[LayerRow]
    graph_ms: float
    layers_ms: float
    calls: int


class Minute(Record):
    """Hold one part of a soak.

    Attributes
    ----------
    start_s, end_s : since the start.
    ms_p50, ms_p95 : latency.
    calls : number of calls.
    temperature_c : the hottest sensor; None without sensors.
    cpu_mhz : mean clock; None if it is not known.
    watts : mean power; None without a meter.
    """

    start_s: float
    end_s: float
    ms_p50: float
    ms_p95: float
    calls: int
    temperature_c: float | None = None
    cpu_mhz: float | None = None
    watts: float | None = None


class Soak(Record):
    """Hold a long run of one engine.

    Attributes
    ----------
    minutes : the parts.
    change_percent : median of the last part against the first.
    drift_percent_per_hour : slope of the medians (least squares).
    """

    minutes: list[Minute]
    change_percent: float
    drift_percent_per_hour: float


class EngineRecord(Record):
    """Hold all figures of one engine.

    Attributes
    ----------
    engine : what it is.
    start, latency, stages, throughput, power, layers, soak : figures; None or empty if they were
        not measured.
    miou : mean IoU (0..1) on labelled data.
    missing : why a figure is missing, by its name.
    """

    engine: EngineFacts
    start: Start
    latency: LatencyFigures
    stages: Stages | None = None
    throughput: list[ThroughputRow] = []
    power: EnginePower | None = None
    layers: LayerTable | None = None
    soak: Soak | None = None
    miou: float | None = None
    missing: dict[str, str] = {}

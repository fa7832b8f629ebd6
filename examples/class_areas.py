"""Write the share of each class in every frame to a CSV file, and send it by MQTT.

    python examples/class_areas.py 0 areas.csv
    python examples/class_areas.py 0 areas.csv --mqtt broker.local

MQTT needs paho: pip install paho-mqtt.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

import edgeseg
from edgeseg.spec import LabelSpace
from edgeseg.video import Output, Sink


class ClassAreas(Sink):
    """Write one line per frame: its time, and the share of each class, 0 to 1."""

    needs_picture = False

    def __init__(self, path: Path, labels: LabelSpace, host: str | None, port: int) -> None:
        self._names = labels.names
        self._client = None
        if host:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion

            self._client = Client(CallbackAPIVersion.VERSION2)
            self._client.connect(host, port)
            self._client.loop_start()
        self._file = path.open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._file)
        self._table.writerow(["time_s", *self._names])

    def write(self, output: Output) -> None:
        counts = np.bincount(output.labels.ravel(), minlength=256)[: len(self._names)]
        shares = [round(float(share), 6) for share in counts / output.labels.size]
        self._table.writerow([output.frame.timestamp_s, *shares])
        if self._client:
            values = dict(zip(self._names, shares, strict=True))
            self._client.publish("edgeseg/areas", json.dumps(values))

    def finish(self) -> None:
        self._file.close()
        if self._client:
            self._client.disconnect()
            self._client.loop_stop()

    abort = finish


def main() -> None:
    """Run until the source ends or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", default="enet-camvid")
    parser.add_argument("--mqtt", metavar="HOST", help="the broker")
    parser.add_argument("--port", type=int, default=1883)
    options = parser.parse_args()

    with edgeseg.load_engine(options.engine) as engine:
        sink = ClassAreas(options.out, engine.spec.labels, options.mqtt, options.port)
        edgeseg.segment(engine, edgeseg.open_source(options.source), [sink])


if __name__ == "__main__":
    main()

"""Power meters on made-up trees of sysfs, a made-up NVML, and loads of known energy."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from edgeseg.errors import InputError
from edgeseg.profiling.power import (
    MACHINE,
    MeterLostError,
    PowerMeter,
    PowerSampler,
    Trace,
    find_meters,
)
from edgeseg.profiling.power.hwmon import BatteryMeter, HwmonMeter
from edgeseg.profiling.power.ina3221 import Ina3221Meter
from edgeseg.profiling.power.rapl import RaplMeter
from edgeseg.profiling.power.usb import STALE_S, UsbMeter


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def ina3221(folder: str, rails: dict[str, tuple[int, int]]) -> dict[str, object]:
    """Files of the kernel's driver: label, millivolts and milliamperes; channel 7 is the sum."""
    files: dict[str, object] = {f"{folder}/name": "ina3221"}
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{folder}/in{number}_label"] = label
        files[f"{folder}/in{number}_input"] = millivolts
        files[f"{folder}/in{number}_enable"] = 1
        files[f"{folder}/curr{number}_input"] = milliamperes
    files[f"{folder}/in7_label"] = "sum of shunt voltages"
    files[f"{folder}/in7_input"] = 12
    return files


ORIN_NANO = ina3221(
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1",
    {"VDD_IN": (4912, 928), "VDD_CPU_GPU_CV": (4912, 96), "VDD_SOC": (4912, 296)},
)
AGX_ORIN = {
    **ina3221(
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3",
        {"VDD_GPU_SOC": (19000, 127), "VDD_CPU_CV": (19000, 84), "VIN_SYS_5V0": (4968, 947)},
    ),
    **ina3221(
        "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon4",
        {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4968, 101)},
    ),
}
THOR = {
    **ina3221(
        "sys/bus/i2c/drivers/ina3221/2-0040/hwmon/hwmon2",
        {"VDD_GPU": (20000, 1876), "VDD_CPU_SOC_MSS": (20000, 948), "VIN_SYS_5V0": (5000, 3666)},
    ),
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5/name": "ina238",
    "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5/power1_input": 87426000,
}
OLD_NANO: dict[str, object] = {
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": 2718,
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input": 120,
}


@pytest.mark.parametrize(
    ("files", "rails", "total_w", "of"),
    [
        (ORIN_NANO, 3, 4.912 * 0.928, ("VDD_IN",)),
        (AGX_ORIN, 4, 2.413 + 1.596 + 4.704696, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
        (THOR, 4, 87.426, ("VIN",)),
        (OLD_NANO, 2, 2.718, ("POM_5V_IN",)),
    ],
    ids=["Orin Nano, Orin NX", "AGX Orin", "Thor", "Nano with L4T 32"],
)
def test_every_rail_of_a_jetson_is_read(
    tmp_path: Path, files: dict[str, object], rails: int, total_w: float, of: tuple[str, ...]
) -> None:
    meter = Ina3221Meter(tree(tmp_path, files))
    watts = meter.read()
    assert len(meter.rails) == len(watts) == rails
    assert "NC" not in watts
    assert "sum of shunt voltages" not in watts
    total = meter.total_of(watts)
    assert total is not None
    assert total[0] == pytest.approx(total_w)
    assert total[1] == of


def test_a_jetson_is_found_once_and_covers_the_machine(tmp_path: Path) -> None:
    """The same sensor is seen through the driver and through hwmon's class."""
    tree(tmp_path, ORIN_NANO)
    (tmp_path / "sys/class/hwmon").mkdir(parents=True)
    (tmp_path / "sys/class/hwmon/hwmon1").symlink_to(
        tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    )
    found = find_meters(tmp_path)
    assert [meter.name for meter in found.meters] == ["ina3221"]
    assert found.whole()[0].covers == MACHINE
    assert found.missing["hwmon"] == "no sensor gives power"
    assert found.meters[0].source.count("hwmon1") == 1


def test_a_rail_that_is_off_or_vanishes_is_left_out(tmp_path: Path) -> None:
    tree(tmp_path, ORIN_NANO)
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    (folder / "in3_enable").write_text("0\n")
    meter = Ina3221Meter(tmp_path)
    assert meter.rails == ("VDD_IN", "VDD_CPU_GPU_CV")
    (folder / "curr2_input").unlink()
    assert set(meter.read()) == {"VDD_IN"}
    shutil.rmtree(folder)
    with pytest.raises(MeterLostError):
        meter.read()


def rapl(root: Path, **energy_uj: int) -> Path:
    """A laptop: a package with cores and memory, and the platform's zone if it is given."""
    zones = {"package": "intel-rapl:0", "core": "intel-rapl:0:0", "dram": "intel-rapl:0:2"}
    for name, value in energy_uj.items():
        zone = zones.get(name, "intel-rapl:1")
        label = "package-0" if name == "package" else name
        tree(
            root / "sys/class/powercap" / zone,
            {"name": label, "energy_uj": value, "max_energy_range_uj": 262143328850},
        )
    return root


def test_rapl_counts_over_its_wrap(tmp_path: Path) -> None:
    now = [0.0]
    limit = 262143328850
    rapl(tmp_path, package=limit - 4_000_000, core=0, dram=0)
    meter = RaplMeter(tmp_path, clock=lambda: now[0])
    assert meter.read() == {}
    now[0] = 2.0
    rapl(tmp_path, package=16_000_000, core=8_000_000, dram=2_000_000)
    watts = meter.read()
    assert watts["package-0"] == pytest.approx(10.0)
    assert watts["package-0/core"] == pytest.approx(4.0)
    total = meter.total_of(watts)
    assert total is not None
    assert total[0] == pytest.approx(11.0)
    assert total[1] == ("package-0", "package-0/dram")


def test_the_platform_zone_is_the_whole_machine(tmp_path: Path) -> None:
    meter = RaplMeter(rapl(tmp_path, package=0, psys=0))
    assert meter.covers == MACHINE
    assert meter.total_of({"package-0": 5.0, "psys": 9.0}) == (9.0, ("psys",))


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="needs root to lose it")
def test_rapl_that_only_root_may_read_says_how_to_change_that() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = rapl(Path(folder), package=0)
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0o400)
        os.seteuid(65534)
        try:
            found = find_meters(root)
        finally:
            os.seteuid(0)
    assert found.meters == ()
    assert "permission denied" in found.missing["rapl"]
    assert "sudo chmod a+r /sys/class/powercap/*/energy_uj" in found.missing["rapl"]


def test_the_real_powercap_gives_power() -> None:
    if not list(Path("/sys/class/powercap").glob("*-rapl:*")):
        pytest.skip("this machine has no powercap")
    try:
        meter = RaplMeter()
    except PermissionError:
        pytest.skip("powercap may be read by root only")
    meter.read()
    time.sleep(0.1)
    assert all(0 <= watts < 2000 for watts in meter.read().values())


def test_hwmon_and_batteries(tmp_path: Path) -> None:
    supply = "sys/class/power_supply"
    tree(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "amdgpu",
            "sys/class/hwmon/hwmon0/power1_average": 21_000_000,
            "sys/class/hwmon/hwmon0/power1_label": "PPT",
            f"{supply}/BAT0/type": "Battery",
            f"{supply}/BAT0/status": "Discharging",
            f"{supply}/BAT0/voltage_now": 12_000_000,
            f"{supply}/BAT0/current_now": -1_500_000,
            f"{supply}/BAT1/type": "Battery",
            f"{supply}/BAT1/status": "Full",
            f"{supply}/BAT1/power_now": 3_000_000,
            f"{supply}/ucsi-source-psy-1/type": "USB",
            f"{supply}/ucsi-source-psy-1/voltage_now": 5_000_000,
            f"{supply}/ucsi-source-psy-1/current_now": 900_000,
        },
    )
    assert HwmonMeter(tmp_path).read() == {"amdgpu/PPT": 21.0}
    assert BatteryMeter(tmp_path).read() == {"BAT0": 18.0, "BAT1": 0.0}
    found = find_meters(tmp_path)
    assert [meter.name for meter in found.whole()] == ["battery"]

    (tmp_path / supply / "BAT0/status").write_text("Charging\n")
    assert "does not discharge" in find_meters(tmp_path).missing["battery"]


def test_a_usb_meter_is_read_from_its_growing_csv(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "meter.csv"
    path.write_text("time;Voltage (V);Current (mA)\n0;5.1;1000\n1;5.0;2000\n1.5;5.0;30")
    meter = UsbMeter(path, clock=lambda: now[0])
    assert meter.read() == {"usb": 10.0}  # the last line is not whole
    with path.open("a") as file:
        file.write("00\n")
    assert meter.read() == {"usb": 15.0}
    now[0] = STALE_S + 1
    with pytest.raises(MeterLostError, match="has not grown"):
        meter.read()
    (tmp_path / "other.csv").write_text("time,temperature\n0,20\n")
    with pytest.raises(InputError, match="no column of power: got time, temperature"):
        UsbMeter(tmp_path / "other.csv")
    with pytest.raises(InputError, match="cannot be read"):
        UsbMeter(tmp_path / "nothing.csv")


# -- energy ----------------------------------------------------------------------------------------


def test_the_trapezoid_rule_is_exact_for_a_ramp_and_joined_by_time() -> None:
    trace = Trace([0.0, 1.0, 4.0], [0.0, 10.0, 40.0])
    for start, end in ((0.0, 4.0), (0.3, 0.9), (0.5, 3.7), (2.0, 2.5)):
        assert trace.energy_j(start, end) == pytest.approx(5 * (end**2 - start**2))
    starts = np.array([0.1, 1.9])
    assert trace.per_frame_j(starts, starts + 0.2) == pytest.approx([5 * 0.08, 5 * 0.8])
    assert trace.energy_j(4.0, 5.0) == 40.0  # constant after the last sample
    assert trace.between(1.5, 3.5) is None  # no sample in it


def test_a_counter_is_integrated_as_it_counts() -> None:
    trace = Trace([0.0, 1.0, 3.0], [99.0, 10.0, 20.0], averages=True)
    assert trace.energy_j(0.0, 3.0) == 50.0
    assert trace.energy_j(0.5, 1.5) == 5.0 + 10.0
    assert trace.energy_j(-1.0, 0.0) == 10.0
    assert trace.energy_j(3.0, 4.0) == 20.0


class Load(PowerMeter):
    """A load whose energy is known: 20 W and a 3 Hz sine of 10 W."""

    name = "load"
    covers = MACHINE

    @property
    def rails(self) -> tuple[str, ...]:
        return ("all",)

    @staticmethod
    def energy_j(start: float, end: float) -> float:
        rate = 2 * np.pi * 3
        wave = (np.cos(rate * start) - np.cos(rate * end)) / rate
        return float(20 * (end - start) + 10 * wave)

    def read(self) -> dict[str, float]:
        return {"all": 20 + 10 * float(np.sin(2 * np.pi * 3 * time.perf_counter()))}


def test_a_load_of_known_energy_is_integrated_within_a_percent() -> None:
    with PowerSampler([Load()], interval_s=0.01) as sampler:
        time.sleep(0.1)
        start = time.perf_counter()
        time.sleep(1.03)
        end = time.perf_counter()
        time.sleep(0.1)
    total = sampler.total()
    assert total is not None
    power = total[0].between(start, end)
    assert power is not None
    assert power.energy_j == pytest.approx(Load.energy_j(start, end), rel=0.01)
    assert power.sampling_error_percent is not None
    assert power.sampling_error_percent < 3
    assert total[1] == ("load:all",)


class Counter(PowerMeter):
    """A counter of the same load: the mean since the reading before."""

    name = "counter"
    averages = True

    def __init__(self) -> None:
        self._last = time.perf_counter()

    @property
    def rails(self) -> tuple[str, ...]:
        return ("all",)

    def read(self) -> dict[str, float]:
        now = time.perf_counter()
        mean = Load.energy_j(self._last, now) / (now - self._last)
        self._last = now
        return {"all": mean}


def test_a_sensor_and_a_counter_add_up() -> None:
    with PowerSampler([Load(), Counter()], interval_s=0.01) as sampler:
        time.sleep(0.1)
        start = time.perf_counter()
        time.sleep(0.8)
        end = time.perf_counter()
        time.sleep(0.1)
    total = sampler.total()
    assert total is not None
    assert total[0].energy_j(start, end) == pytest.approx(2 * Load.energy_j(start, end), rel=0.01)
    assert total[1] == ("load:all", "counter:all")


def test_a_sensor_that_vanishes_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    tree(tmp_path, ORIN_NANO)
    meter = Ina3221Meter(tmp_path)
    with PowerSampler([meter, Load()], interval_s=0.01) as sampler:
        time.sleep(0.1)
        shutil.rmtree(tmp_path / "sys")
        time.sleep(0.1)
    assert sampler.lost == {"ina3221": "no rail of the INA3221 answers"}
    rails = sampler.rails()
    assert len(rails["load:all"]) > len(rails["ina3221:VDD_IN"]) > 2


def test_sampling_keeps_its_clock_though_a_reading_is_slow() -> None:
    class Slow(Load):
        def read(self) -> dict[str, float]:
            time.sleep(0.015)
            return super().read()

    with PowerSampler([Slow()], interval_s=0.02) as sampler:
        time.sleep(0.5)
    taken = sampler.rails()["load:all"].times_s
    assert len(taken) > 12
    assert threading.active_count() < 50


# -- NVML ------------------------------------------------------------------------------------------

FAKE_NVML = r"""
#include <string.h>
#include <time.h>
typedef void *device; typedef struct { unsigned long long total, free, used; } memory;
static double now(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9;
}
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "made up"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *d) { *d = (device)(long)(i + 1); return 0; }
int nvmlDeviceGetName(device d, char *s, unsigned n) { strncpy(s, "Made-up GPU", n); return 0; }
int nvmlDeviceGetPowerUsage(device d, unsigned *mw) { *mw = 100000 * (long)d; return 0; }
#ifdef COUNTS
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj) {
  *mj = (unsigned long long)(now() * 50000 * (long)d); return 0;
}
#else
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj) { return 3; }
#endif
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *c) { *c = 61; return 0; }
int nvmlDeviceGetClockInfo(device d, int kind, unsigned *mhz) {
  *mhz = kind ? 5001 : 1410; return 0;
}
int nvmlDeviceGetMemoryInfo(device d, memory *m) { m->used = 1 << 30; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(device d, unsigned long long *r) {
  *r = 0x44; return 0;
}
"""


@pytest.fixture(params=["counts energy", "gives power"])
def fake_nvml(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "nvml.c").write_text(FAKE_NVML)
    flags = ["-DCOUNTS"] if request.param == "counts energy" else []
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", *flags, "-o", library, tmp_path / "nvml.c"], check=True
    )
    return request.param, tmp_path


def test_nvml_through_its_c_interface(fake_nvml: tuple[str, Path]) -> None:
    """In a process of its own, since a library is loaded once: as the driver's, by its name."""
    kind, folder = fake_nvml
    code = textwrap.dedent(
        """
        import json, time
        from edgeseg.profiling.power import PowerSampler, find_meters
        [meter] = [m for m in find_meters().meters if m.name == "nvml"]
        with PowerSampler([meter], interval_s=0.02) as sampler:
            time.sleep(0.4)
        total, names = sampler.total()
        power = total.between(total.times_s[1], total.times_s[-1])
        state = meter.state()["gpu0"]
        print(json.dumps([power.watts_mean, names, meter.source, meter.averages, state]))
        """
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    watts, names, source, averages, state = json.loads(done.stdout)
    counts = kind == "counts energy"
    assert averages is counts
    assert watts == pytest.approx(150.0 if counts else 300.0, rel=0.02)
    assert names == ["nvml:gpu0", "nvml:gpu1"]
    assert source == "Made-up GPU, Made-up GPU"
    assert state == {
        "graphics_mhz": 1410,
        "memory_mhz": 5001,
        "temperature_c": 61.0,
        "memory_used_bytes": 1 << 30,
        "throttle": ["power cap", "thermal slowdown (hardware)"],
    }


def test_without_a_driver_nvml_says_so() -> None:
    missing = find_meters().missing
    if "nvml" not in missing:
        pytest.skip("this machine has an NVIDIA GPU")
    assert "no NVIDIA driver" in missing["nvml"] or "NVML" in missing["nvml"]

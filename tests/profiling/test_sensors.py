"""Check the temperature and the power on the status line, on made trees of sysfs."""

from pathlib import Path

from edgeseg.profiling.sensors import LiveSensors


def zone(root: Path, number: int, name: str, millidegrees: int) -> None:
    folder = root / "sys" / "class" / "thermal" / f"thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{name}\n")
    (folder / "temp").write_text(f"{millidegrees}\n")


def test_the_hottest_processor_counts_and_a_disk_does_not(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", 51000)
    zone(tmp_path, 1, "gpu-thermal", 56500)
    zone(tmp_path, 2, "nvme", 80000)
    temperature_c, watts = LiveSensors(tmp_path)()
    assert temperature_c == 56.5
    assert watts is None


def test_the_power_of_the_board_until_its_sensor_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221\n")
    for number, (label, millivolts, milliamperes) in enumerate(
        [("VDD_IN", 5000, 1600), ("VDD_CPU_GPU_CV", 5000, 500), ("VDD_SOC", 5000, 300)], start=1
    ):
        (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")

    sensors = LiveSensors(tmp_path)
    assert sensors()[1] == 8.0  # VDD_IN is the whole board; the others are parts of it

    for file in folder.iterdir():
        file.unlink()
    assert sensors()[1] is None
    assert sensors()[1] is None

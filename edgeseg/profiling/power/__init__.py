"""Measure power: meters of this machine, a thread that samples them, energy of a span of time.

>>> found = find_meters()
>>> isinstance(found.missing, dict)
True
"""

from edgeseg.profiling.power.find import Found, find_meters
from edgeseg.profiling.power.meter import MACHINE, PART, MeterLostError, PowerMeter
from edgeseg.profiling.power.sampling import PowerSampler
from edgeseg.profiling.power.trace import Power, Trace

__all__ = [
    "MACHINE",
    "PART",
    "Found",
    "MeterLostError",
    "Power",
    "PowerMeter",
    "PowerSampler",
    "Trace",
    "find_meters",
]

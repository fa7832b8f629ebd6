"""edgeseg's version, for passports, caches and results."""

__version__ = "0.1.0"

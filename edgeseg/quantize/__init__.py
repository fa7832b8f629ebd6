"""Quantize a float network to INT8: calibration sets, ranges, Q/DQ pairs. No torch is imported."""

"""Check that a calibration set fits its network."""

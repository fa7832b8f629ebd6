"""Is a calibration set fit for its net?"""

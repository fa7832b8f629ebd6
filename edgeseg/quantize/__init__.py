"""From a float net to an INT8 one: calibration sets, ranges of activations, where Q/DQ pairs go. No torch in here."""

"""The live demo: a small program over edgeseg's public names. Start: ``python -m camera_demo``."""

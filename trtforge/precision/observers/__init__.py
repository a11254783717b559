"""Calibration observers: streaming and mergeable, one per file."""

"""Samples for calibration, from every kind of source."""

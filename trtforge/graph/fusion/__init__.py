"""Fusion passes, one per file."""

"""Clean-up passes, one per file."""

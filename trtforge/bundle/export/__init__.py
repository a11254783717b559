"""Other shapes of a bundle, one exporter per file."""

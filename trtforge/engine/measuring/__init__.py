"""Latency and throughput, measured in the manner of MLPerf inference."""

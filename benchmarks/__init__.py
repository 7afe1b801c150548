"""Benchmarks: the commands behind the figures of docs/results.md."""

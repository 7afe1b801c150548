"""Metrics of a run: quality, traffic and their formats."""

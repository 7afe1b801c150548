"""Synthesis as a job: what to make, and making it, here or on workers."""

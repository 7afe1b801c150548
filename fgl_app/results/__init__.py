"""The output of a run: its directory, pictures and report."""

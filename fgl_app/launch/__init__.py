"""Start Flower's own commands for a run and follow the run to its end."""

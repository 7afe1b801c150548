"""Starting Flower's own commands for a run, and following it to its end."""

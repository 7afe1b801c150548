"""What a run leaves behind: its directory, the pictures and the report."""

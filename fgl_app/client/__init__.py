"""What a client knows of itself: which site it is, and its state on disk."""

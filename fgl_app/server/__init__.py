"""What the methods share on the server: the session, training with progress, sampling, correction."""

"""The identity of a client and its state on disk."""

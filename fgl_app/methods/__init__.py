"""What the ServerApp can run, a module for each kind of method."""

"""The command line `fgl`."""

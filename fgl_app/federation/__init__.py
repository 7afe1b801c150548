"""A federation of real processes on one machine: SuperLink, SuperExec and SuperNodes, with TLS and keys."""

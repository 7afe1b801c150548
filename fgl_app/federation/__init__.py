"""A whole federation on one machine: SuperLink, SuperExec and SuperNodes, with TLS and keys."""

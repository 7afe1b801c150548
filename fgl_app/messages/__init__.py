"""Flower's messages: encoding, decoding and validation of what server and clients exchange."""

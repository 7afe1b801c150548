"""Generative federated learning on Flower."""

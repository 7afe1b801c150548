"""A diffusion model of digits, federated."""

"""The papers' algorithms in torch and diffusers, independent of Flower."""

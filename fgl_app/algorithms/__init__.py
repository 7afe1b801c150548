"""The papers' algorithms in plain torch and diffusers; nothing here knows Flower."""

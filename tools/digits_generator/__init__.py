"""Training of the embedded text-to-image model of digits."""

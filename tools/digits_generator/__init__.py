"""The tool that makes the embedded text-to-image model of digits."""

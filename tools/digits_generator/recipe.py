"""Settings of the training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of the training; the defaults gave the published weights.

    Attributes
    ----------
    renders : int
        Number of clean renders, a multiple of 5000.
    font_share, printed_share, degraded_share : float
        Shares of the renders that come from handwriting fonts and from printed fonts, and how many degraded
        renders are added.
    vae_steps, unet_steps : int
        Number of batches of 64.
    seed : int
        Seed of every step.
    """

    renders: int = 60_000
    font_share: float = 0.20
    printed_share: float = 0.03
    degraded_share: float = 0.04
    vae_steps: int = 1000
    unet_steps: int = 5500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.renders <= 0 or self.renders % 5000:
            raise ValueError(f"renders must be a positive multiple of 5000, but got {self.renders}.")
        for name in ("vae_steps", "unet_steps"):
            if getattr(self, name) < 100:
                raise ValueError(f"{name} must be at least 100, but got {getattr(self, name)}.")

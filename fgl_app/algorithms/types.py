"""Value types shared by all packages; their only import is torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

State = Mapping[str, Tensor]
"""A model's ``state_dict``: name to tensor."""


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images and their classes.

    Parameters
    ----------
    images : Tensor
        uint8, shape (N, C, H, W).
    labels : Tensor
        int64, shape (N,), values in ``[0, num_classes)``.
    domains : Tensor or None, default None
        int64, shape (N,): the domain of each image, if the dataset has domains.
    """

    images: Tensor
    labels: Tensor
    domains: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> LabeledImages:
        """Return the examples at ``indices`` (int64, shape (M,))."""
        domains = None if self.domains is None else self.domains[indices]
        return LabeledImages(self.images[indices], self.labels[indices], domains)

    def arrays(self) -> np.ndarray:
        """Return the images for PIL and matplotlib: uint8, shape (N, H, W, C), or (N, H, W) if greyscale."""
        return self.images.permute(0, 2, 3, 1).squeeze(-1).numpy()


@dataclass(frozen=True, eq=False)
class LabeledLatents:
    """Inputs of a diffusion model and their classes.

    Parameters
    ----------
    latents : Tensor
        float32, shape (N, C, H, W): pixels in [-1, 1], or latents of about unit variance.
    labels : Tensor
        int64, shape (N,), values in ``[0, num_classes)``.
    """

    latents: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> LabeledLatents:
        """Return the examples at ``indices`` (int64, shape (M,))."""
        return LabeledLatents(self.latents[indices], self.labels[indices])


@dataclass(frozen=True)
class TextEmbeddings:
    """Encoded prompts, the upload of an FGL client (arXiv 2306.16064, section 3.2).

    Parameters
    ----------
    tensors : Mapping[str, Tensor]
        Named outputs of the generator's ``encode_prompt``, floating point, each of shape (P, ...). Stable
        Diffusion has one, ``prompt_embeds`` of shape (P, tokens, width).
    labels : Tensor
        int64, shape (P,): the class of each prompt.
    counts : Tensor
        int64, shape (P,): the number of private examples behind each prompt.
    """

    tensors: Mapping[str, Tensor]
    labels: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor for one prompt, by name."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.tensors.items()}

    def select(self, rows: Sequence[int]) -> TextEmbeddings:
        """Return the prompts at ``rows``."""
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return TextEmbeddings(tensors, self.labels[rows], self.counts[rows])

"""Server side of FedDDPM: sampling of the auxiliary set from the clients' models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from fgl_app.algorithms.diffusion import TIMESTEPS, Sampler
from fgl_app.algorithms.sampling import sample
from fgl_app.algorithms.types import LabeledLatents
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import (
    check_choice,
    check_integer,
    checked_process,
    checked_unet,
    require_app_extra,
)
from fgl_app.server.auxiliary import sample_shares
from fgl_app.strategies.fedddpm import LocalModel

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class AuxiliarySampling:
    """Sample an auxiliary set; result of :func:`sample_with`.

    Parameters
    ----------
    unet : UNet2DModel
        Model to load the weights of each client into.
    draw : Callable[[UNet2DModel, Tensor, Sequence[Generator]], LabeledLatents]
        Draws one sample per label (int64, shape (N,)) and generator.
    seed : int
        Seed of the noise.
    device : str
        Torch device.

    Attributes
    ----------
    num_classes : int
        Number of classes of the U-Net, 0 without classes; ``FedDDPMStrategy`` compares it with its own.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        draw: Callable[[UNet2DModel, Tensor, Sequence[torch.Generator]], LabeledLatents],
        *,
        seed: int,
        device: str,
    ) -> None:
        self._unet, self._draw, self._seed, self._device = unet, draw, seed, device
        self.num_classes: int = unet.config.num_class_embeds or 0

    def __call__(self, clients: Iterator[LocalModel]) -> LabeledLatents:
        """Return the auxiliary set as inputs of the U-Net; usable as ``sample_fn``."""
        unet = self._unet.to(resolve_device(self._device))
        models = self._check_num_classes(clients)
        return sample_shares(models, unet, partial(self._draw, unet), seed=self._seed)[0]

    def _check_num_classes(self, clients: Iterable[LocalModel]) -> Iterator[LocalModel]:
        for client in clients:
            if len(client.label_counts) != self.num_classes:
                raise ValueError(
                    "num_classes of FedDDPMStrategy must be num_class_embeds of the U-Net, "
                    f"{self.num_classes}, got {len(client.label_counts)}"
                )
            yield client


def sample_with(
    unet_fn: Callable[[], UNet2DModel],
    *,
    num_inference_steps: int = 50,
    sampler: Sampler = "ddim",
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    noise_schedule: Literal["linear", "cosine"] = "linear",
    batch_size: int = 128,
    seed: int = 0,
    device: str = "auto",
) -> AuxiliarySampling:
    """Return a ``sample_fn`` that draws the share of each client in the auxiliary set from its model.

    A model that draws NaN or values outside the range of images is skipped, with a warning that names the
    client.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Builds your U-Net of diffusers. For a class-conditional U-Net the strategy needs ``num_classes``; each
        share then has the class proportions of its client.
    num_inference_steps : int, default 50
        Denoising steps; use all 1000 for "ddpm".
    sampler : {"ddim", "dpm++", "ddpm"}, default "ddim"
        Sampling method.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        Target that your U-Net predicts.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults match ``DDPMScheduler()``.
    batch_size : int, default 128
        Samples per batch.
    seed : int, default 0
        Seed of the noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    AuxiliarySampling
        ``clients -> LabeledLatents``: the auxiliary set as inputs of the U-Net, float32.

    Raises
    ------
    ValueError
        If an argument is invalid.
    TypeError
        If ``unet_fn`` does not return a U-Net of diffusers.
    ImportError
        If fgl-app is installed without its extra "app".
    """
    require_app_extra("sample_with")
    check_integer(1, num_inference_steps=num_inference_steps, batch_size=batch_size)
    check_integer(0, seed=seed)
    check_choice(get_args(Sampler), sampler=sampler)
    if num_inference_steps > TIMESTEPS:
        raise ValueError(f"num_inference_steps must be at most {TIMESTEPS}, got {num_inference_steps}")
    process = checked_process(prediction_type, noise_schedule)
    check_device(device)

    def draw(model: UNet2DModel, labels: Tensor, generators: Sequence[torch.Generator]) -> LabeledLatents:
        return sample(
            model,
            process.sampler(sampler),
            labels,
            generators,
            num_inference_steps=num_inference_steps,
            batch_size=batch_size,
        )

    return AuxiliarySampling(checked_unet(unet_fn), draw, seed=seed, device=device)

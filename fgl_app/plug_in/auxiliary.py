"""The server's part of FedDDPM: an auxiliary set out of the clients' models, and correction on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from fgl_app.algorithms.diffusion import (
    TIMESTEPS,
    Sampler,
    sample,
)
from fgl_app.algorithms.types import LabeledLatents
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import (
    check_choice,
    check_integer,
    checked_process,
    require_app_extra,
    require_unet,
)
from fgl_app.server.auxiliary import sample_shares
from fgl_app.strategies.fedddpm import LocalModel

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class AuxiliarySampling:
    """Samples an auxiliary set; :func:`sample_with` makes one.

    Parameters
    ----------
    unet : UNet2DModel
        Gets the clients' weights, one after the other.
    draw : Callable[[UNet2DModel, Tensor, Sequence[Generator]], LabeledLatents]
        Draws a sample for each label (int64, shape (N,)) and noise stream.
    seed : int
        Seed of the noise.
    device : str
        Torch device.

    Attributes
    ----------
    num_classes : int
        Classes that the U-Net knows, 0 for none; ``FedDDPMStrategy`` compares its own with it.
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
        """Return the auxiliary set, as the U-Net sees it; fits ``sample_fn``."""
        unet = self._unet.to(resolve_device(self._device))
        return sample_shares(self._fitting(clients), unet, partial(self._draw, unet), seed=self._seed)[0]

    def _fitting(self, clients: Iterable[LocalModel]) -> Iterator[LocalModel]:
        known = self.num_classes
        for client in clients:
            told = len(client.label_counts)
            if told != known:
                rule = f"num_classes must be the U-Net's num_class_embeds, {known}"
                raise ValueError(f"FedDDPMStrategy's {rule}, got {told}")
            yield client


def sample_with(
    unet_fn: Callable[[], UNet2DModel],
    *,
    steps: int = 50,
    sampler: Sampler = "ddim",
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    noise_schedule: Literal["linear", "cosine"] = "linear",
    batch_size: int = 128,
    seed: int = 0,
    device: str = "auto",
) -> AuxiliarySampling:
    """Return a ``sample_fn`` that draws each client's share of the auxiliary set from its model.

    A model that draws NaN or values beyond all images is left out, with a warning that names the client.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Makes your U-Net of diffusers. Conditional on classes, the strategy needs ``num_classes``: shares then
        have each client's own proportions of classes.
    steps : int, default 50
        Denoising steps; all 1000 for "ddpm".
    sampler : {"ddim", "dpm++", "ddpm"}, default "ddim"
        How samples are drawn.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        What your U-Net learns to predict.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults are those of ``DDPMScheduler()``.
    batch_size : int, default 128
        Samples denoised at a time.
    seed : int, default 0
        Seed of the noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    AuxiliarySampling
        ``clients -> LabeledLatents``: the auxiliary set as the U-Net sees it, float32.

    Raises
    ------
    ValueError
        When an argument breaks its rule.
    TypeError
        When ``unet_fn`` returns no U-Net of diffusers.
    ImportError
        When fgl-app is installed without its extra "app".
    """
    require_app_extra("sample_with")
    check_integer(1, steps=steps, batch_size=batch_size)
    check_integer(0, seed=seed)
    check_choice(get_args(Sampler), sampler=sampler)
    if steps > TIMESTEPS:
        raise ValueError(f"steps must be at most {TIMESTEPS}, got {steps}")
    process = checked_process(prediction_type, noise_schedule)
    check_device(device)

    unet = unet_fn()
    require_unet(unet)

    def draw(model: UNet2DModel, labels: Tensor, noise: Sequence[torch.Generator]) -> LabeledLatents:
        return sample(
            model,
            process.sampler(sampler),
            labels,
            noise,
            num_inference_steps=steps,
            batch_size=batch_size,
        )

    return AuxiliarySampling(unet, draw, seed=seed, device=device)

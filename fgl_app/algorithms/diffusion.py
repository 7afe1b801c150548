"""Denoising diffusion (Ho et al. 2020, arXiv 2006.11239): the process and its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgl_app.algorithms.threads import limit_threads
from fgl_app.algorithms.training_loop import copy_parameters, shuffled_batches, training_loop
from fgl_app.algorithms.types import LabeledLatents

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, SchedulerMixin, UNet2DModel

TIMESTEPS = 1000
"""Number of time steps, T of the paper."""

Sampler = Literal["ddim", "dpm++", "ddpm"]
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


@dataclass(frozen=True)
class DiffusionProcess:
    """Parameters of the diffusion process, shared by training and sampling.

    Parameters
    ----------
    prediction_type : {"epsilon", "v_prediction"}
        Target of the model (epsilon: Ho et al. 2020; v: Salimans and Ho 2022, arXiv 2202.00512).
    betas : {"linear", "cosine"}
        Noise schedule (linear: Ho et al. 2020; cosine: Nichol and Dhariwal 2021, arXiv 2102.09672).
    """

    prediction_type: Literal["epsilon", "v_prediction"]
    betas: Literal["linear", "cosine"]

    def scheduler(self) -> DDPMScheduler:
        """Return the process as a scheduler of diffusers: T = 1000, no clipping."""
        from diffusers import DDPMScheduler

        return DDPMScheduler(
            num_train_timesteps=TIMESTEPS,
            beta_schedule=BETAS[self.betas],
            prediction_type=self.prediction_type,
            # Latents are unbounded, and samplers clip pixels in different ways.
            clip_sample=False,
        )

    def sampler(self, name: Sampler) -> SchedulerMixin:
        """Return a sampler: "ddim" (eta 0), "dpm++" (second order) or "ddpm" (ancestral)."""
        import diffusers

        names = {"ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler", "ddpm": "DDPMScheduler"}
        # With few steps, sampling must start from pure noise (Lin et al. 2024, arXiv 2305.08891).
        scheduler_class = getattr(diffusers, names[name])
        return scheduler_class.from_config(self.scheduler().config, timestep_spacing="trailing")


@dataclass(frozen=True)
class DiffusionSettings:
    """Hyper-parameters of training a diffusion model with AdamW.

    Parameters
    ----------
    epochs : int
        Passes over the data; 0 leaves the model unchanged.
    batch_size : int
        Examples per batch.
    learning_rate : float
        Learning rate; its peak when ``schedule`` is "cosine".
    ema_decay : float
        Decay of the exponential moving average of the weights, the result of training; 0 disables averaging.
    process : DiffusionProcess
        The diffusion process.
    min_steps : int, default 0
        Minimum number of optimizer steps; small datasets get more epochs.
    schedule : {"constant", "cosine"}, default "constant"
        Learning rate schedule; "cosine" decays to zero.
    proximal_mu : float, default 0.0
        FedProx's mu.
    precision : {"no", "fp16", "bf16"}, default "no"
        Mixed precision of the forward pass.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    process: DiffusionProcess
    min_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    proximal_mu: float = 0.0
    precision: Literal["no", "fp16", "bf16"] = "no"

    def steps(self, examples: int) -> int:
        """Return the number of optimizer steps: whole epochs, at least ``min_steps`` steps."""
        if not (self.epochs and examples):
            return 0
        epoch_steps = math.ceil(examples / self.batch_size)
        return epoch_steps * max(self.epochs, math.ceil(self.min_steps / epoch_steps))


def noise_prediction_loss(
    unet: UNet2DModel, scheduler: DDPMScheduler, data: LabeledLatents, generator: torch.Generator
) -> Tensor:
    """Return the simple loss of Ho et al. 2020 (equation 14), at a random time step for each example.

    A float32 scalar. A U-Net with class embeddings is class-conditional. The batch may be on any device; the
    generator, the source of time steps and noise, is on the CPU.
    """
    device = unet.device
    times = torch.randint(TIMESTEPS, (len(data),), generator=generator).to(device)
    noise = torch.randn(data.latents.shape, generator=generator).to(device)
    clean = data.latents.to(device)
    noisy = scheduler.add_noise(clean, noise, times)
    predicted = unet(noisy, times, class_labels=class_condition(unet, data.labels)).sample
    target = noise
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(clean, noise, times)
    return functional.mse_loss(predicted.float(), target)


def train_diffusion(
    unet: UNet2DModel,
    data: LabeledLatents,
    settings: DiffusionSettings,
    generator: torch.Generator,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    callback: Callable[[int], None] | None = None,
    on_gradients: Callable[[nn.Module], None] | None = None,
) -> float:
    """Train a diffusion model in place and leave it with the moving average of its weights.

    Parameters
    ----------
    unet : UNet2DModel
        The model.
    data : LabeledLatents
        Training examples; an empty set leaves the model unchanged.
    settings : DiffusionSettings
        Hyper-parameters.
    generator : torch.Generator
        Source of order, time steps and noise, on the CPU.
    optimizer : Optimizer or None, default None
        Optimizer of an earlier training whose state continues; None creates a new AdamW.
    callback : Callable[[int], None] or None, default None
        Called with the number of examples after each batch.
    on_gradients : Callable[[nn.Module], None] or None, default None
        May read and change the gradients before each optimizer step.

    Returns
    -------
    float
        Mean loss over all steps; 0.0 without training.
    """
    from diffusers.training_utils import EMAModel

    steps = settings.steps(len(data))
    if not steps:
        return 0.0
    accelerator = _accelerator(unet.device, settings.precision)
    optimizer = accelerator.prepare(optimizer or new_optimizer(unet))
    average = EMAModel(unet.parameters(), decay=settings.ema_decay, foreach=True)
    scheduler = settings.process.scheduler()
    done = 0

    def losses() -> Iterator[tuple[Tensor, int]]:
        while done < steps:
            for indices in shuffled_batches(len(data), settings.batch_size, generator):
                _set_learning_rate(optimizer, settings, done / steps)
                with accelerator.autocast():
                    loss = noise_prediction_loss(unet, scheduler, data.select(indices), generator)
                yield loss, len(indices)

    def after_step(count: int) -> None:
        nonlocal done
        done += 1
        average.step(unet.parameters())
        if callback:
            callback(count)

    unet.train()
    # Dropout draws from the global generator.
    with limit_threads(unet), torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        loss = training_loop(
            unet,
            losses(),
            optimizer,
            backward=accelerator.backward,
            proximal=(settings.proximal_mu, copy_parameters(unet)),
            on_gradients=on_gradients,
            after_step=after_step,
        )
    if settings.ema_decay:
        average.copy_to(unet.parameters())
    return loss


def new_optimizer(unet: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW over the model's parameters; :func:`train_diffusion` sets its learning rate."""
    return torch.optim.AdamW(unet.parameters(), weight_decay=0.0, fused=True)


def class_condition(unet: UNet2DModel, labels: Tensor) -> Tensor | None:
    """Return the class labels that a U-Net takes, on its device; None for an unconditional model."""
    return labels.to(unet.device) if unet.config.num_class_embeds else None


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: DiffusionSettings, progress: float
) -> None:
    factor = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * factor


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    from accelerate import Accelerator

    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")

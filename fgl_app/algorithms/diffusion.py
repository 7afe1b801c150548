"""Denoising diffusion (Ho et al. 2020, arXiv 2006.11239) on torch and diffusers: training and sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgl_app.algorithms.threads import limit_threads
from fgl_app.algorithms.training_loop import snapshot, training_loop
from fgl_app.algorithms.types import LabeledLatents

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, SchedulerMixin, UNet2DModel

TIMESTEPS = 1000
"""T of the paper."""

Sampler = Literal["ddim", "dpm++", "ddpm"]
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


@dataclass(frozen=True)
class DiffusionProcess:
    """What is diffused how: the choices that training and sampling share.

    Parameters
    ----------
    prediction_type : {"epsilon", "v_prediction"}
        What the model predicts (epsilon: Ho et al. 2020; v: Salimans and Ho 2022, arXiv 2202.00512).
    betas : {"linear", "cosine"}
        Noise over time (linear: Ho et al. 2020; cosine: Nichol and Dhariwal 2021, arXiv 2102.09672).
    """

    prediction_type: Literal["epsilon", "v_prediction"]
    betas: Literal["linear", "cosine"]

    def scheduler(self) -> DDPMScheduler:
        """Return the process as diffusers has it: T = 1000, no clipping."""
        from diffusers import DDPMScheduler

        return DDPMScheduler(
            num_train_timesteps=TIMESTEPS,
            beta_schedule=BETAS[self.betas],
            prediction_type=self.prediction_type,
            # Latents have no bounds, and what clipping does to pixels differs between samplers.
            clip_sample=False,
        )

    def sampler(self, name: Sampler) -> SchedulerMixin:
        """Return a sampler: "ddim" (eta 0), "dpm++" (second order) or "ddpm" (ancestral)."""
        import diffusers

        kinds = {"ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler", "ddpm": "DDPMScheduler"}
        # With few steps the first must start from pure noise (Lin et al. 2024, arXiv 2305.08891).
        kind = getattr(diffusers, kinds[name])
        return kind.from_config(self.scheduler().config, timestep_spacing="trailing")


@dataclass(frozen=True)
class DiffusionSettings:
    """Hyper-parameters of training a diffusion model with AdamW.

    Parameters
    ----------
    epochs : int
        Passes over the data; 0 leaves the model as it is.
    batch_size : int
        Examples in a batch.
    learning_rate : float
        Step size, the peak of a schedule.
    ema_decay : float
        Decay of the exponential moving average of the weights, which is what training returns; 0 is none.
    process : DiffusionProcess
        What is diffused how.
    min_steps : int, default 0
        Steps to take at least, by more epochs when the data are few.
    schedule : {"constant", "cosine"}, default "constant"
        Learning rate over the steps; "cosine" ends at zero.
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
        """Return the steps of training on so many examples: whole epochs, at least ``min_steps``."""
        if not (self.epochs and examples):
            return 0
        an_epoch = math.ceil(examples / self.batch_size)
        return an_epoch * max(self.epochs, math.ceil(self.min_steps / an_epoch))


def noise_prediction_loss(
    unet: UNet2DModel, scheduler: DDPMScheduler, data: LabeledLatents, generator: torch.Generator
) -> Tensor:
    """Return the simple loss of Ho et al. 2020 (equation 14) at a random time for each example.

    Parameters
    ----------
    unet : UNet2DModel
        Conditional on classes when it has class embeddings.
    scheduler : DDPMScheduler
        The process.
    data : LabeledLatents
        The batch, on any device.
    generator : torch.Generator
        Source of times and noise, on the CPU.

    Returns
    -------
    Tensor
        float32 scalar.
    """
    device = unet.device
    times = torch.randint(TIMESTEPS, (len(data),), generator=generator).to(device)
    noise = torch.randn(data.latents.shape, generator=generator).to(device)
    clean = data.latents.to(device)
    noisy = scheduler.add_noise(clean, noise, times)
    predicted = unet(noisy, times, class_labels=_classes(unet, data.labels)).sample
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
    """Train a diffusion model in place; it ends with the moving average of its weights.

    Parameters
    ----------
    unet : UNet2DModel
        The model.
    data : LabeledLatents
        Training examples; an empty set leaves the model as it is.
    settings : DiffusionSettings
        Hyper-parameters.
    generator : torch.Generator
        Source of order, times and noise, on the CPU.
    optimizer : Optimizer or None, default None
        One of the model's parameters whose state goes on; None starts a new AdamW.
    callback : Callable[[int], None] or None, default None
        Called with the number of examples of each batch.
    on_gradients : Callable[[nn.Module], None] or None, default None
        May read and change the gradients before each step.

    Returns
    -------
    float
        Mean loss over all steps; 0.0 when nothing was trained.
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
        for indices in _batches(len(data), settings.batch_size, steps, generator):
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
    # Dropout draws from the global stream.
    with limit_threads(unet), torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        loss = training_loop(
            unet,
            losses(),
            optimizer,
            backward=accelerator.backward,
            proximal=(settings.proximal_mu, snapshot(unet)),
            on_gradients=on_gradients,
            after_step=after_step,
        )
    if settings.ema_decay:
        average.copy_to(unet.parameters())
    return loss


def new_optimizer(unet: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW over the model's parameters; :func:`train_diffusion` sets its learning rate."""
    return torch.optim.AdamW(unet.parameters(), weight_decay=0.0, fused=True)


@torch.no_grad()
def sample(
    unet: UNet2DModel,
    scheduler: SchedulerMixin,
    labels: Tensor,
    noise: Sequence[torch.Generator],
    *,
    num_inference_steps: int,
    batch_size: int,
    callback: Callable[[int], None] | None = None,
) -> LabeledLatents:
    """Sample from a diffusion model.

    Parameters
    ----------
    unet : UNet2DModel
        The model.
    scheduler : SchedulerMixin
        A sampler of the process it was trained with.
    labels : Tensor
        int64, shape (N,): the class of each sample; ignored by an unconditional model.
    noise : Sequence[torch.Generator]
        N noise streams on the CPU: a sample is the same in any batch.
    num_inference_steps : int
        Denoising steps.
    batch_size : int
        Samples denoised at a time.
    callback : Callable[[int], None] or None, default None
        Called with the number of samples of each finished batch.

    Returns
    -------
    LabeledLatents
        N samples, float32 on the CPU.
    """
    unet.eval()
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    is_ancestral = type(scheduler).__name__ == "DDPMScheduler"
    batches = []
    for start in range(0, len(labels), batch_size):
        streams = list(noise[start : start + batch_size])
        x = torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(unet.device)
        classes = _classes(unet, labels[start : start + batch_size])
        scheduler.set_timesteps(num_inference_steps)
        x = x * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            predicted = unet(scheduler.scale_model_input(x, time), time, class_labels=classes).sample
            more = {"generator": streams} if is_ancestral else {}
            x = scheduler.step(predicted, time, x, **more).prev_sample
        batches.append(x.float().cpu())
        if callback:
            callback(len(x))
    return LabeledLatents(torch.cat(batches), labels)


def _classes(unet: UNet2DModel, labels: Tensor) -> Tensor | None:
    return labels.to(unet.device) if unet.config.num_class_embeds else None


def _batches(examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    while steps > 0:
        for batch in torch.randperm(examples, generator=generator).split(batch_size):
            yield batch
            steps -= 1


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: DiffusionSettings, progress: float
) -> None:
    factor = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * factor


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    from accelerate import Accelerator

    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")

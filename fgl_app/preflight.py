"""What can be known to fail before anything starts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.config import NO_DATASET, ConfigError, RunConfig
from fgl_app.metrics.units import format_range
from fgl_app.results.trackers import check_trackers

if TYPE_CHECKING:
    from fgl_app.data.types import ImageDataset


def check(config: RunConfig, num_clients: int) -> None:
    """Check what the config's own rules cannot see, before Flower is started.

    Parameters
    ----------
    config : RunConfig
        With the run's name and an absolute output directory.
    num_clients : int
        Clients to be simulated.

    Raises
    ------
    ConfigError
        Names the key, the rule and the value.
    """
    _check_output(Path(config.output_dir), config.run_name, is_new=not config.resume)
    check_inputs(config, num_clients)


def check_inputs(config: RunConfig, num_clients: int) -> None:
    """Check that the data can be loaded and split, and that the models are there.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    num_clients : int
        Clients over which the data are split; 0 when not known yet.

    Raises
    ------
    ConfigError
        Names the key, the rule and the value.
    """
    _examine(examinations(config, num_clients).values())


def check_generator(config: RunConfig) -> None:
    """Check that images can be synthesized here: the device, the generator, its LoRA weights.

    Raises
    ------
    ConfigError
        Names the key, the rule and the value.
    """
    _examine([lambda: _generator(config), lambda: (_cluster if config.ray_address else _device)(config)])


def _examine(looks: Iterable[Callable[[], str]]) -> None:
    for examine in looks:
        try:
            examine()
        except (ValueError, FileNotFoundError, ConnectionError) as error:
            raise ConfigError(str(error)) from error


def examinations(config: RunConfig, num_clients: int) -> dict[str, Callable[[], str]]:
    """Return what is looked at before a run, by name: each says what it found, or raises ValueError.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    num_clients : int
        Clients over which the data are split; 0 when not known yet.
    """
    from huggingface_hub.utils import logging as hub_logging

    # What cannot be reached is told in a sentence, without its retries.
    hub_logging.set_verbosity_error()
    looks: dict[str, Callable[[], str]] = {
        "device": lambda: _device(config),
        "classifier": lambda: _classifier(config),
        "data set": lambda: _data_set(config, num_clients),
    }
    if config.tracker_names:
        looks["trackers"] = lambda: check_trackers(config.tracker_names)
    if config.method == "fgl" or (config.trains_diffusion and config.diffusion_space == "latent"):
        looks["generator"] = lambda: _generator(config)
    if config.method == "fgl" and config.prompts == "instance":
        looks["captioner"] = lambda: _captioner(config)
    if config.ray_address:
        looks["Ray cluster"] = lambda: _cluster(config)
    if config.trains_diffusion:
        looks["diffusion model"] = lambda: _diffusion(config)
    return looks


# Torch and the data libraries take seconds to import; a wrong folder is told before.


def _device(config: RunConfig) -> str:
    from fgl_app.models.devices import check_device, resolve_device, resolve_precision

    check_device(config.device)
    device = resolve_device(config.device)
    if config.generator_offload != "none" and device.type == "cpu":
        raise ValueError(f"generator-offload must be 'none' without a GPU, got '{config.generator_offload}'")
    return f"{device}, mixed precision {resolve_precision(config.mixed_precision, device)}"


def _classifier(config: RunConfig) -> str:
    from fgl_app.models.classifiers import check_classifier

    check_classifier(config.classifier)
    return config.classifier


def _data_set(config: RunConfig, num_clients: int) -> str:
    from fgl_app.data.partitions import partition
    from fgl_app.data.sources import config_dataset
    from fgl_app.models.generators import check_classes

    data = config_dataset(config)
    if config.method == "fgl":
        check_classes(config.generator, data.class_names)
    channels, side = data.test.images.shape[1:3]
    if config.dataset == NO_DATASET:
        return f"none here: the sites evaluate; {len(data.class_names)} classes"
    parts = [
        f"{len(data.train):,} training and {len(data.test):,} test images, {len(data.class_names)} classes",
        f"{'grey' if channels == 1 else 'colour'}, {side} x {side}",
    ]
    if data.domain_names:
        parts.append(f"domains {', '.join(data.domain_names)}")
    if data.skipped:
        parts.append(f"{len(data.skipped)} images cannot be read")
    if num_clients and not config.clients_own_data:
        sizes = [len(part) for part in partition(config, num_clients)]
        parts.append(f"{num_clients} clients with {format_range(sizes)} images")
    return "; ".join(parts)


def _generator(config: RunConfig) -> str:
    from fgl_app.models.generators import generator_family
    from fgl_app.models.lora import check_lora

    family = generator_family(config.generator)
    check_lora(config.generator_lora, family)
    lora = f", LoRA {config.generator_lora}" if config.generator_lora else ""
    return f"{family} in {config.generator}{lora}"


def _cluster(config: RunConfig) -> str:
    from fgl_app.synthesis.workers import check_cluster

    check_cluster(config.ray_address)
    return config.ray_address


def _captioner(config: RunConfig) -> str:
    from fgl_app.models.captioners import captioner_kind

    return captioner_kind(config.captioner)


def _diffusion(config: RunConfig) -> str:
    from fgl_app.data.sources import config_dataset

    _check_diffusion(config, config_dataset(config))
    return f"{config.unet} U-Net in {config.diffusion_space} space, features of {config.feature_extractor}"


def _check_diffusion(config: RunConfig, data: ImageDataset) -> None:
    from fgl_app.models.autoencoders import autoencoder_channels, autoencoder_factor
    from fgl_app.models.extractors import check_extractor
    from fgl_app.models.unets import check_unet

    channels = data.test.images.shape[1]
    check_extractor(
        config.feature_extractor, config.dataset, num_classes=len(data.class_names), channels=channels
    )
    if config.diffusion_space == "latent" and autoencoder_channels(config.generator) < channels:
        raise ValueError(
            f"the autoencoder of generator '{config.generator}' takes grey images and '{config.dataset}' has "
            "colours; set diffusion-space=pixel or give another generator"
        )
    factor = 1 if config.diffusion_space == "pixel" else autoencoder_factor(config.generator)
    if config.image_size % factor:
        raise ValueError(
            f"image-size must be a multiple of {factor} for the autoencoder of generator "
            f"'{config.generator}', got {config.image_size}"
        )
    check_unet(config.unet, config.image_size // factor)


def _check_output(output_dir: Path, run_name: str, *, is_new: bool) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"config key 'output-dir' must be a folder that can be written, got '{output_dir}' ({reason})"
        ) from error
    if is_new and (output_dir / run_name).exists():
        raise ConfigError(f"config key 'run-name' must be new in {output_dir}, got '{run_name}'")

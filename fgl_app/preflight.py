"""Checks that find invalid input before a run starts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from fgl_app.config import NO_DATASET, ConfigError, RunConfig
from fgl_app.metrics.units import format_range
from fgl_app.results.trackers import check_trackers

Check = Callable[[], str]


def check(config: RunConfig) -> None:
    """Check the output directory and the inputs before Flower starts, and release the dataset.

    The config has the run's name and an absolute output directory. Raises ConfigError.
    """
    _check_output(Path(config.output_dir), config.run_name, is_new=not config.resume)
    check_inputs(config)
    from fgl_app.data.caches import release_datasets

    # The ServerApp loads the dataset in its own process, and this process lives as long as the run.
    release_datasets()


def check_inputs(config: RunConfig) -> None:
    """Check that the dataset can be loaded and split and that the models exist.

    Raises ConfigError with the key, the rule and the value.
    """
    _run_checks(input_checks(config).values())


def check_synthesis(config: RunConfig) -> None:
    """Check device, generator, LoRA weights and Ray cluster before a synthesis; raises ConfigError."""
    check_place = _check_cluster if config.ray_address else _check_device
    _run_checks([lambda: _check_generator(config), lambda: check_place(config)])


def _run_checks(checks: Iterable[Check]) -> None:
    for run_check in checks:
        try:
            run_check()
        except (ValueError, FileNotFoundError, ConnectionError) as error:
            raise ConfigError(str(error)) from error


def input_checks(config: RunConfig) -> dict[str, Check]:
    """Return the checks of a run's inputs by name; each returns what it found or raises ValueError."""
    from huggingface_hub.utils import logging as hub_logging

    # The error message names what cannot be reached; warnings about retries add nothing.
    hub_logging.set_verbosity_error()
    checks: dict[str, Check] = {
        "device": lambda: _check_device(config),
        "classifier": lambda: _check_classifier(config),
        "dataset": lambda: _check_dataset(config),
    }
    if config.tracker_names:
        checks["trackers"] = lambda: check_trackers(config.tracker_names)
    if config.spec.synthesizes or (config.trains_diffusion and config.diffusion_space == "latent"):
        checks["generator"] = lambda: _check_generator(config)
    if config.spec.synthesizes and config.prompts == "instance":
        checks["captioner"] = lambda: _check_captioner(config)
    if config.ray_address:
        checks["Ray cluster"] = lambda: _check_cluster(config)
    if config.trains_diffusion:
        checks["diffusion model"] = lambda: _check_diffusion(config)
    return checks


# Torch and the data libraries take seconds to import; cheap checks come first.


def _check_device(config: RunConfig) -> str:
    from fgl_app.models.devices import check_device, resolve_device, resolve_precision

    check_device(config.device)
    device = resolve_device(config.device)
    if config.generator_offload != "none" and device.type == "cpu":
        raise ValueError(f"generator-offload must be 'none' without a GPU, got '{config.generator_offload}'")
    return f"{device}, mixed precision {resolve_precision(config.mixed_precision, device)}"


def _check_classifier(config: RunConfig) -> str:
    from fgl_app.models.classifiers import check_classifier

    check_classifier(config.classifier)
    return config.classifier


def _check_dataset(config: RunConfig) -> str:
    from fgl_app.data.partitions import partition
    from fgl_app.data.sources import config_dataset
    from fgl_app.models.generators import check_classes

    data = config_dataset(config)
    if config.spec.synthesizes:
        check_classes(config.generator, data.class_names)
    channels, side = data.test.images.shape[1:3]
    if config.dataset == NO_DATASET:
        return f"none on the server, the sites evaluate; {len(data.class_names)} classes"
    parts = [
        f"{len(data.train):,} training and {len(data.test):,} test images, {len(data.class_names)} classes",
        f"{'grey' if channels == 1 else 'colour'}, {side} x {side}",
    ]
    if data.domain_names:
        parts.append(f"domains {', '.join(data.domain_names)}")
    if data.skipped:
        parts.append(f"{len(data.skipped)} images cannot be read")
    if config.num_clients and not config.clients_own_data:
        sizes = [len(part) for part in partition(config, config.num_clients)]
        parts.append(f"{config.num_clients} clients with {format_range(sizes)} images")
    return "; ".join(parts)


def _check_generator(config: RunConfig) -> str:
    from fgl_app.models.generators import generator_family
    from fgl_app.models.lora import check_lora

    family = generator_family(config.generator)
    check_lora(config.generator_lora, family)
    lora = f", LoRA {config.generator_lora}" if config.generator_lora else ""
    return f"{family} in {config.generator}{lora}"


def _check_cluster(config: RunConfig) -> str:
    from fgl_app.synthesis.workers import check_cluster

    check_cluster(config.ray_address)
    return config.ray_address


def _check_captioner(config: RunConfig) -> str:
    from fgl_app.models.captioners import captioner_kind

    return captioner_kind(config.captioner)


def _check_diffusion(config: RunConfig) -> str:
    from fgl_app.data.sources import config_dataset
    from fgl_app.models.autoencoders import autoencoder_channels, autoencoder_factor
    from fgl_app.models.extractors import check_extractor
    from fgl_app.models.unets import check_unet

    data = config_dataset(config)
    channels = data.test.images.shape[1]
    check_extractor(
        config.feature_extractor, config.dataset, num_classes=len(data.class_names), channels=channels
    )
    if config.diffusion_space == "latent" and autoencoder_channels(config.generator) < channels:
        raise ValueError(
            f"the autoencoder of generator '{config.generator}' takes grey images, and "
            f"'{config.dataset}' has colour images; set diffusion-space=pixel or give another generator"
        )
    factor = 1 if config.diffusion_space == "pixel" else autoencoder_factor(config.generator)
    if config.image_size % factor:
        raise ValueError(
            f"image-size must be a multiple of {factor} for the autoencoder of generator "
            f"'{config.generator}', got {config.image_size}"
        )
    check_unet(config.unet, config.image_size // factor)
    return f"{config.unet} U-Net in {config.diffusion_space} space, features of {config.feature_extractor}"


def _check_output(output_dir: Path, run_name: str, *, is_new: bool) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"config key 'output-dir' must be a writable folder, got '{output_dir}' ({reason})"
        ) from error
    if is_new and (output_dir / run_name).exists():
        raise ConfigError(f"config key 'run-name' must be new in {output_dir}, got '{run_name}'")

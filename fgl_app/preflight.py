"""What can be known to fail before anything starts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.config import ConfigError, RunConfig

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
    _check_output(Path(config.output_dir), config.run_name)
    check_inputs(config, num_clients)


def check_inputs(config: RunConfig, num_clients: int) -> None:
    """Check that the data can be loaded and split, and that the generator is there.

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
    # Torch and the data libraries take seconds to import; a wrong folder is told before.
    from fgl_app.data.partitions import partition
    from fgl_app.data.sources import config_dataset
    from fgl_app.models.captioners import check_captioner
    from fgl_app.models.classifiers import check_classifier
    from fgl_app.models.devices import check_device
    from fgl_app.models.pipelines import generator_source

    try:
        check_device(config.device)
        check_classifier(config.classifier)
        data = config_dataset(config)
        if num_clients:
            partition(config, num_clients)
        if config.method == "fgl" or (config.trains_diffusion and config.diffusion_space == "latent"):
            generator_source(config.generator)
        if config.method == "fgl" and config.prompts == "instance":
            check_captioner(config.captioner)
        if config.trains_diffusion:
            _check_diffusion(config, data)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def _check_diffusion(config: RunConfig, data: ImageDataset) -> None:
    from fgl_app.models.devices import resolve_device, resolve_precision
    from fgl_app.models.extractors import check_extractor
    from fgl_app.models.pipelines import autoencoder_channels, autoencoder_factor
    from fgl_app.models.unets import check_unet

    resolve_precision(config.mixed_precision, resolve_device(config.device))
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


def _check_output(output_dir: Path, run_name: str) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"config key 'output-dir' must be a folder that can be written, got '{output_dir}' ({reason})"
        ) from error
    if (output_dir / run_name).exists():
        raise ConfigError(f"config key 'run-name' must be new in {output_dir}, got '{run_name}'")

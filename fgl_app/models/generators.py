"""Sources of generators: the embedded one, folders and hub ids of text-to-image pipelines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from fgl_app.algorithms.embedding import PROMPT_OUTPUTS
from fgl_app.models.assets import DIGIT_NAMES, asset
from fgl_app.models.hub_ids import is_hub_id, split_revision, unknown_source_error, unreachable_error

EMBEDDED = "embedded"


def check_classes(generator: str, class_names: Sequence[str]) -> None:
    """Raise ValueError if a generator cannot draw the classes; only the embedded one is limited."""
    others = [name for name in class_names if name not in DIGIT_NAMES]
    if generator == EMBEDDED and others:
        raise ValueError(
            f"generator 'embedded' draws only handwritten digits ('{DIGIT_NAMES[0]}' to "
            f"'{DIGIT_NAMES[-1]}'), not '{others[0]}'; give another generator"
        )


def embedded_generator() -> Path:
    """Return the folder of the embedded text-to-image model."""
    return asset("digits", "model_index.json")


def generator_source(generator: str) -> str:
    """Return the folder or hub id of a ``generator`` config value.

    Raises
    ------
    ValueError
        If the value is a folder without a supported pipeline, or neither a folder nor a hub id.
    """
    if generator == EMBEDDED:
        return str(embedded_generator())
    folder = Path(generator).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"generator folder {folder} is not a diffusers pipeline: it has no model_index.json"
            )
        _check_family(generator, json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
        return str(folder)
    if not is_hub_id(generator):
        raise unknown_source_error("generator", f"'{EMBEDDED}'", generator)
    return generator


def generator_family(generator: str) -> str:
    """Return the class of a generator's pipeline; raise ValueError if it is not supported."""
    return str(load_pipeline_config(generator)["_class_name"])


def pretrained_arguments(generator: str) -> dict[str, str]:
    """Return the arguments by which ``from_pretrained`` of diffusers finds a generator."""
    source = generator_source(generator)
    name, revision = (source, {}) if Path(source).is_dir() else split_revision(source)
    return {"pretrained_model_name_or_path": name, **revision}


def load_pipeline_config(generator: str) -> dict[str, Any]:
    """Load ``model_index.json`` of a generator.

    Raises
    ------
    ValueError
        If it cannot be loaded, or describes a pipeline that is not supported.
    """
    diffusers = import_diffusers()
    arguments = pretrained_arguments(generator)
    try:
        config: dict[str, Any] = diffusers.DiffusionPipeline.load_config(**arguments)
    except OSError as error:
        contents = " with model_index.json and the parts listed there, as `save_pretrained` writes it"
        raise unreachable_error("generator", generator, contents) from error
    _check_family(arguments["pretrained_model_name_or_path"], config)
    return config


def import_diffusers() -> ModuleType:
    """Import diffusers with the progress bars and notices of its loaders turned off."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    # diffusers passes huggingface_hub an argument that it no longer supports.
    warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument is deprecated")
    warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")
    return cast(ModuleType, diffusers)


def _check_family(source: str, config: Mapping[str, Any]) -> None:
    family = config.get("_class_name")
    if family not in PROMPT_OUTPUTS:
        raise ValueError(f"generator '{source}' is a {family}; it must be one of {', '.join(PROMPT_OUTPUTS)}")

"""What is trained: its model, its training on a client, its evaluation and its files."""

from __future__ import annotations

from fgl_app.config import RunConfig
from fgl_app.tasks.classification import ClassificationTask
from fgl_app.tasks.diffusion import DiffusionTask
from fgl_app.tasks.task import Task

__all__ = ["ClassificationTask", "DiffusionTask", "Task", "make_task"]


def make_task(config: RunConfig, class_names: tuple[str, ...], channels: int) -> Task:
    """Return what a config trains, for images of so many channels.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    class_names : tuple[str, ...]
        Name of each class.
    channels : int
        Of the data set's images.
    """
    kind = DiffusionTask if config.trains_diffusion else ClassificationTask
    return kind(config, class_names, channels)

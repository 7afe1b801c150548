"""Tasks: how a kind of model is created, trained, evaluated and saved."""

from __future__ import annotations

from fgl_app.config import RunConfig
from fgl_app.tasks.classification import ClassificationTask
from fgl_app.tasks.diffusion import DiffusionTask
from fgl_app.tasks.task import Task

__all__ = ["ClassificationTask", "DiffusionTask", "Task", "make_task"]


def make_task(config: RunConfig, class_names: tuple[str, ...], channels: int) -> Task:
    """Return the task of a config; its arguments are those of :class:`Task`."""
    kind = DiffusionTask if config.trains_diffusion else ClassificationTask
    return kind(config, class_names, channels)

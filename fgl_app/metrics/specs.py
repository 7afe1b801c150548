"""The metrics of a trained model: name, title, format and direction of each.

Logs, tables, curves and reports read :data:`METRICS`. A new metric needs an entry here and the code that
computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fgl_app.metrics.units import format_number, format_percent


@dataclass(frozen=True)
class MetricSpec:
    """How a metric is named, shown and compared.

    Attributes
    ----------
    key : str
        Name in ``metrics.jsonl`` and ``summary.json``.
    title : str
        Name in text, as inside a sentence.
    format : Callable[[float], str]
        Returns a value as text.
    higher_is_better : bool, default True
        Direction of the metric.
    primary : bool, default False
        Whether the metric ranks models. A run reports one primary metric.
    final_only : bool, default False
        Whether only the final evaluation computes the metric; round tables omit it.
    scale : {"fraction", "log"}, default "fraction"
        Value axis of a curve.
    curve_title : str, default ""
        Title of a curve; primary metrics have one.
    explanation : str, default ""
        Note in the report, which makes the metric a key figure like the primary metric.
    maximum : float, default 1.0
        Largest possible value; the smallest is 0.
    """

    key: str
    title: str
    format: Callable[[float], str]
    higher_is_better: bool = True
    primary: bool = False
    final_only: bool = False
    scale: Literal["fraction", "log"] = "fraction"
    curve_title: str = ""
    explanation: str = ""
    maximum: float = 1.0

    @property
    def heading(self) -> str:
        """The title with a capital first letter."""
        return self.title[0].upper() + self.title[1:]


_SPECS = (
    MetricSpec(
        "accuracy", "accuracy", format_percent, primary=True, curve_title="Accuracy of the global model"
    ),
    MetricSpec("loss", "loss", "{:.3f}".format, higher_is_better=False, maximum=math.inf),
    MetricSpec(
        "frechet_distance",
        "Frechet distance",
        format_number,
        higher_is_better=False,
        primary=True,
        scale="log",
        maximum=math.inf,
        curve_title="Frechet distance of the global model's samples",
    ),
    MetricSpec("precision", "precision", format_percent),
    MetricSpec("recall", "recall", format_percent),
    MetricSpec(
        "label_agreement", "label agreement", format_percent, explanation="samples classified as their class"
    ),
    MetricSpec(
        "downstream_accuracy",
        "downstream accuracy",
        format_percent,
        final_only=True,
        explanation="of a classifier trained on samples",
    ),
)
METRICS = {spec.key: spec for spec in _SPECS}
"""All metrics by key, in display order."""

PRIMARY_METRICS = tuple(spec for spec in _SPECS if spec.primary)
KEY_FIGURES = tuple(spec for spec in _SPECS if spec.primary or spec.explanation)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics by key of :data:`METRICS` as text, such as ``"accuracy 96.3 %, loss 0.143"``."""
    return ", ".join(f"{METRICS[key].title} {METRICS[key].format(value)}" for key, value in metrics.items())

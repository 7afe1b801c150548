"""Prompts about private data: class-level and instance-level (arXiv 2306.16064, section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A text, the class it describes and the number of private examples it stands for."""

    text: str
    label: int
    count: int


def class_prompts(template: str, labels: Sequence[int], class_names: Sequence[str]) -> list[Prompt]:
    """Write one prompt for each class held.

    Parameters
    ----------
    template : str
        Text with ``{label}``.
    labels : Sequence[int]
        Class of each private example.
    class_names : Sequence[str]
        Name of each class.

    Returns
    -------
    list[Prompt]
        In ascending order of class, counting the class's examples.
    """
    return [
        Prompt(template.format(label=class_names[label]), label, count)
        for label, count in sorted(Counter(labels).items())
    ]


def instance_prompts(
    template: str, labels: Sequence[int], captions: Sequence[str], class_names: Sequence[str]
) -> list[Prompt]:
    """Write one prompt for each distinct pair of class and caption.

    Parameters
    ----------
    template : str
        Text with ``{label}`` and ``{caption}``.
    labels : Sequence[int]
        Class of each private example.
    captions : Sequence[str]
        Caption of each private example, same length.
    class_names : Sequence[str]
        Name of each class.

    Returns
    -------
    list[Prompt]
        In ascending order of class and caption, counting the examples that share them: equal prompts
        are uploaded once.
    """
    return [
        Prompt(template.format(label=class_names[label], caption=caption), label, count)
        for (label, caption), count in sorted(Counter(zip(labels, captions, strict=True)).items())
    ]

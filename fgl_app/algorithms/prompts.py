"""Prompts about private data: class-level and instance-level (arXiv 2306.16064, section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A text, the class it describes, the number of private examples it stands for, and their domain."""

    text: str
    label: int
    count: int
    domain: str = ""


def write_prompts(
    template: str,
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    captions: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    phrases: Mapping[str, str] | None = None,
) -> list[Prompt]:
    """Write one prompt for each distinct description of private examples.

    Parameters
    ----------
    template : str
        Text with ``{label}``, and ``{caption}`` or ``{domain}`` when these are given.
    labels : Sequence[int]
        Class of each private example.
    class_names : Sequence[str]
        Name of each class.
    captions : Sequence[str] or None, default None
        Caption of each example, for instance-level prompts; None: class-level.
    domains : Sequence[str] or None, default None
        Domain of each example.
    phrases : Mapping[str, str] or None, default None
        What stands for a domain in the text; None: its name.

    Returns
    -------
    list[Prompt]
        In ascending order of class, caption and domain, counting the examples that share them: equal
        prompts are uploaded once.
    """
    nothing = [""] * len(labels)
    described = Counter(zip(labels, captions or nothing, domains or nothing, strict=True))
    return [
        Prompt(
            template.format(
                label=class_names[label], caption=caption, domain=(phrases or {}).get(domain, domain)
            ),
            label,
            count,
            domain,
        )
        for (label, caption, domain), count in sorted(described.items())
    ]

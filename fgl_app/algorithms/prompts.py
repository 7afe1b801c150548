"""Class-level and instance-level prompts about private data (arXiv 2306.16064, section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A text, the class that it describes, the number of private examples behind it, and their domain."""

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
    """Return one prompt for each distinct description of private examples.

    Parameters
    ----------
    template : str
        Text with ``{label}``, and with ``{caption}`` or ``{domain}`` if these are given.
    labels : Sequence[int]
        Class of each private example.
    class_names : Sequence[str]
        Name of each class.
    captions : Sequence[str] or None, default None
        Caption of each example, for instance-level prompts; None for class-level prompts.
    domains : Sequence[str] or None, default None
        Domain of each example.
    phrases : Mapping[str, str] or None, default None
        Phrase for each domain in the text; None uses its name.

    Returns
    -------
    list[Prompt]
        In ascending order of class, caption and domain; examples that share all three count for one prompt.
    """
    empty = [""] * len(labels)
    described = Counter(zip(labels, captions or empty, domains or empty, strict=True))
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

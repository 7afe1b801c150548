"""Prompt templates: the data sets' own, and what a given one must hold."""

from __future__ import annotations

from string import Formatter

DIGITS_TEMPLATES = {
    "class": "a handwritten digit {label}",
    "instance": "a handwritten digit {label}, {caption}",
}
PHOTO_TEMPLATES = {
    "class": "{label}, real world images, high resolution",
    "instance": "{label}, {caption}, real world images, high resolution",
}


def own_template(dataset: str, prompts: str) -> str:
    """Return the template of a data set for a kind of prompts."""
    templates = DIGITS_TEMPLATES if dataset == "digits" else PHOTO_TEMPLATES
    return templates["instance" if prompts == "instance" else "class"]


def check_template(template: str, prompts: str) -> None:
    """Raise ValueError unless a template holds the fields that a kind of prompts fills; empty will do."""
    if not template:
        return
    needed = ["label", "caption"] if prompts == "instance" else ["label"]
    try:
        # Bare fields only: a format specification or an attribute has no business in a prompt.
        parts = list(Formatter().parse(template))
        fields = [
            name for _, name, form, conversion in parts if name is not None and not (form or conversion)
        ]
        plain = len(fields) == sum(name is not None for _, name, _, _ in parts)
    except ValueError:
        fields, plain = [], False
    if not plain or set(fields) != set(needed):
        names = " and ".join(f"{{{name}}}" for name in needed)
        raise ValueError(
            f"prompt-template must contain {names} and no other field with prompts '{prompts}', "
            f"got '{template}'"
        )

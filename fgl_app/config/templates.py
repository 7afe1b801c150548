"""Prompt templates: the defaults, and the validation of a configured template."""

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
DOMAIN_TEMPLATES = {
    "class": "{label}, {domain}, high resolution",
    "instance": "{label}, {caption}, {domain}, high resolution",
}


def default_template(dataset: str, prompts: str, *, has_domains: bool) -> str:
    """Return the default template of a dataset for a value of `prompts`."""
    templates = DOMAIN_TEMPLATES if has_domains else PHOTO_TEMPLATES
    if dataset == "digits":
        templates = DIGITS_TEMPLATES
    return templates["instance" if prompts == "instance" else "class"]


def check_template(template: str, prompts: str, *, has_domains: bool) -> None:
    """Raise ValueError if a template lacks a field or has another; an empty template is valid."""
    if not template:
        return
    needed = ["label", "caption"] if prompts == "instance" else ["label"]
    allowed = {*needed, "domain"} if has_domains else set(needed)
    try:
        # Format specifications and attributes are rejected: they could produce very long prompts.
        parts = list(Formatter().parse(template))
        fields = [
            name for _, name, form, conversion in parts if name is not None and not (form or conversion)
        ]
        plain = len(fields) == sum(name is not None for _, name, _, _ in parts)
    except ValueError:
        fields, plain = [], False
    if not (plain and set(needed) <= set(fields) <= allowed):
        names = " and ".join(f"{{{name}}}" for name in needed)
        may = ", may contain {domain}" if has_domains else ""
        raise ValueError(
            f"prompt-template must contain {names}{may} and no other field with prompts '{prompts}', "
            f"got '{template}'"
        )

"""Vocabularies: readable names of classes, and phrases and negative prompts for domains."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fgl_app.models.assets import asset


class Vocabulary(BaseModel):
    """Vocabulary of a dataset, read from a TOML or JSON file with up to three tables.

    Parameters
    ----------
    labels : dict[str, str], default {}
        Class name in the data, such as a WordNet id, to class name in prompts.
    domains : dict[str, str], default {}
        Domain name in the data to phrase in prompts.
    negatives : dict[str, str], default {}
        Domain name in the data to negative prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    labels: dict[str, str] = {}
    domains: dict[str, str] = {}
    negatives: dict[str, str] = {}

    def label(self, name: str) -> str:
        """Return the name of a class in prompts; its own name by default."""
        return self.labels.get(name, name)

    def domain(self, name: str) -> str:
        """Return the phrase of a domain in prompts; by default its name, with spaces for underscores."""
        return self.domains.get(name, name.replace("_", " "))

    def negatives_for(self, domains: Sequence[str], default: str) -> dict[str, str] | None:
        """Return the negative prompt of each domain; None if the vocabulary has none."""
        return {name: self.negatives.get(name, default) for name in domains} if self.negatives else None


def load_vocabulary(file: str) -> Vocabulary:
    """Read a vocabulary from a file, or by the name of a packaged one; "" is an empty vocabulary.

    Raises
    ------
    ValueError
        If the file is missing or invalid.
    """
    if not file:
        return Vocabulary()
    try:
        path = Path(file).expanduser()
        if not path.suffix:
            path = asset("vocabularies", f"{file}.toml") / f"{file}.toml"
        text = path.read_text(encoding="utf-8")
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return Vocabulary.model_validate(tables)
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ValueError(
            f"vocabulary '{file}' must be 'domainnet', or a TOML or JSON file with the tables labels, "
            f"domains and negatives: {reason}"
        ) from error

"""Words for what a data set only numbers: readable names of classes, phrases for domains."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fgl_app.models.assets import asset


class Vocabulary(BaseModel):
    """The words of a data set, read from a TOML or JSON file of up to three tables.

    Parameters
    ----------
    labels : dict[str, str], default {}
        A class's name in the data, such as a WordNet id, to the one that prompts use.
    domains : dict[str, str], default {}
        A domain's name in the data to the phrase that prompts use.
    negatives : dict[str, str], default {}
        A domain's name in the data to its negative prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    labels: dict[str, str] = {}
    domains: dict[str, str] = {}
    negatives: dict[str, str] = {}

    def label(self, name: str) -> str:
        """Return a class's name in prompts: its own unless the file has another."""
        return self.labels.get(name, name)

    def domain(self, name: str) -> str:
        """Return a domain's phrase in prompts: its own name in words unless the file has one."""
        return self.domains.get(name, name.replace("_", " "))

    def negatives_for(self, domains: Sequence[str], otherwise: str) -> dict[str, str] | None:
        """Return the negative prompt of each domain; None when the file has none at all."""
        return {name: self.negatives.get(name, otherwise) for name in domains} if self.negatives else None


def load_vocabulary(file: str) -> Vocabulary:
    """Read a vocabulary: a file, or by its bare name one that is shipped; "" is an empty one.

    Raises
    ------
    ValueError
        When the file is missing or holds something else.
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

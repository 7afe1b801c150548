"""The run config: every key of ``[tool.flwr.app.config]``, typed, with its rule.

Flower passes run config values through unchecked. :func:`parse_config` is the border: whatever gets past
it can be relied on everywhere else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from string import Formatter
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

Method = Literal["fgl", "classifier"]
InnerStrategy = Literal["fedavg", "fedprox", "fedadam", "fedyogi", "centralized", "local-only"]
Partitioning = Literal["iid", "dirichlet", "pathological"]
Prompts = Literal["class", "instance", "labels-only"]
Augmentation = Literal["none", "affine"]
EmbeddingDtype = Literal["float16", "float32"]

OWN_NAMES = ("embedded", "cnn", "resnet18", "resnet34", "resnet50")
"""Generator and classifiers that are no folder and no hub id, whatever lies in the directory."""
REFERENCE_POINTS = ("centralized", "local-only")
DIGITS_TEMPLATES = {
    "class": "a handwritten digit {label}",
    "instance": "a handwritten digit {label}, {caption}",
}
PHOTO_TEMPLATES = {
    "class": "{label}, real world images, high resolution",
    "instance": "{label}, {caption}, real world images, high resolution",
}


class ConfigError(ValueError):
    """The run config breaks a rule; the message names key, rule and value."""


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunConfig(BaseModel):
    """A validated run config. Keys are kebab-case on the outside, snake_case here."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_kebab, allow_inf_nan=False
    )

    # What runs
    method: Method = Field("fgl", description="`fgl`, or `classifier` for the inner strategy alone")
    inner_strategy: InnerStrategy = Field(
        "fedavg",
        description="strategy of the ordinary rounds; with method=classifier also the reference points "
        "`centralized` (all data on the server) and `local-only` (no exchange)",
    )
    num_server_rounds: int = Field(
        1, ge=1, le=100_000, description="rounds; FGL's set-up is the first, so 1 is one-shot FGL"
    )
    num_clients: int = Field(
        0, ge=0, description="nodes to wait for before the first message; 0: those that are connected"
    )
    min_nodes: int = Field(2, ge=1, description="good replies a phase needs; with fewer the run fails")
    node_timeout: float = Field(3600.0, gt=0, description="seconds to wait for nodes and for replies")

    # Data
    dataset: str = Field("digits", min_length=1, description="`digits` (embedded: 5000 real MNIST digits)")
    image_size: int = Field(32, ge=8, le=1024, description="side of the classifier's square input, pixels")
    partitioning: Partitioning = Field("dirichlet", description="how examples are split over the clients")
    dirichlet_alpha: float = Field(
        0.01, gt=0, description="concentration of `dirichlet`: smaller is more skewed"
    )
    classes_per_client: int = Field(2, ge=1, description="classes a client holds under `pathological`")

    # The classifier and its training, the same for every method
    classifier: str = Field(
        "cnn",
        min_length=1,
        description="`cnn` (small), `resnet18`, `resnet34`, `resnet50` from scratch; or the hub id or folder "
        "of a pretrained one",
    )
    local_epochs: int = Field(5, ge=1, description="epochs of a client in a round")
    batch_size: int = Field(64, ge=1, description="images in a training batch, clients and server")
    learning_rate: float = Field(0.02, gt=0, description="SGD learning rate of the clients")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum, clients and server")
    weight_decay: float = Field(0.0002, ge=0, description="SGD weight decay, clients and server")
    augmentation: Augmentation = Field("affine", description="training augmentation of every method")
    proximal_mu: float = Field(0.01, ge=0, description="proximal weight mu of `fedprox`")
    fedopt_learning_rate: float = Field(0.01, gt=0, description="server step eta of `fedadam` and `fedyogi`")

    # FGL
    generator: str = Field(
        "embedded", min_length=1, description="text-to-image pipeline: `embedded`, a hub id or a folder"
    )
    prompts: Prompts = Field(
        "class",
        description="`class`: one prompt a class held; `instance`: a caption an image; "
        "`labels-only`: the control, class names alone, no upload",
    )
    prompt_template: str = Field(
        "", description="prompt with {label} and, for `instance`, {caption}; empty: the data set's own"
    )
    negative_prompt: str = Field(
        "low quality, low resolution", description="what guidance leads away from (guidance-scale > 1)"
    )
    captioner: Literal["strokes"] = Field(
        "strokes", description="who writes {caption}: `strokes` measures pen strokes"
    )
    embedding_dtype: EmbeddingDtype = Field("float16", description="precision of uploaded embeddings")
    images_per_class: int = Field(600, ge=1, description="synthetic images of each class")
    guidance_scale: float = Field(
        1.0, ge=1, le=50, description="classifier-free guidance; 1 is none and costs half"
    )
    num_inference_steps: int = Field(10, ge=1, le=1000, description="denoising steps an image")
    synthesis_batch_size: int = Field(128, ge=1, description="images denoised at a time")
    synthetic_epochs: int = Field(15, ge=1, description="epochs of the first training on the synthetic set")
    synthetic_learning_rate: float = Field(0.05, gt=0, description="peak SGD learning rate of that training")
    server_epochs: int = Field(
        0, ge=0, description="epochs on the synthetic set after each aggregation; 0 is none"
    )
    server_learning_rate: float = Field(0.01, gt=0, description="SGD learning rate of those epochs")
    max_upload_mb: float = Field(64.0, gt=0, description="a client's upload above this is rejected, MB")

    # Where and how
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="torch device")
    output_dir: str = Field("outputs", min_length=1, description="folder that gets a folder for each run")
    run_name: str = Field(
        "", pattern=r"^(\w[\w.-]*)?$", description="name of that folder; empty: time and method"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.inner_strategy in REFERENCE_POINTS and self.method != "classifier":
            raise ValueError(
                f"inner-strategy '{self.inner_strategy}' is a reference point and needs "
                f"method 'classifier', got '{self.method}'"
            )
        if self.num_clients and self.min_nodes > self.num_clients:
            raise ValueError(
                f"min-nodes must be at most num-clients ({self.num_clients}), got {self.min_nodes}; "
                f"set min-nodes={self.num_clients} to run with so few"
            )
        if self.run_name == "latest":
            raise ValueError("run-name must not be 'latest', the link to the newest run")
        _check_template(self.prompt_template, self.prompts)
        return self

    @property
    def what_runs(self) -> str:
        """Short name of what the config runs: the method, or the inner strategy when it runs alone."""
        return self.inner_strategy if self.method == "classifier" else self.method

    @property
    def template(self) -> str:
        """The prompt template in force: the given one, or the data set's own."""
        own = DIGITS_TEMPLATES if self.dataset == "digits" else PHOTO_TEMPLATES
        return self.prompt_template or own["instance" if self.prompts == "instance" else "class"]

    def to_run_config(self) -> dict[str, str | int | float]:
        """Return the config under its outside, kebab-case keys."""
        return self.model_dump(by_alias=True)


def _check_template(template: str, prompts: Prompts) -> None:
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


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate run config values.

    Parameters
    ----------
    values : Mapping[str, Any]
        Kebab-case keys to TOML scalars; absent keys take their defaults.

    Returns
    -------
    RunConfig
        The frozen, validated config.

    Raises
    ------
    ConfigError
        Names each offending key, the rule it breaks and the value received.
    """
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(detail) for detail in error.errors())) from None


def config_keys() -> dict[str, Any]:
    """Return every key with its default, as Flower's pyproject table has them."""
    return RunConfig().to_run_config()


def allowed_values(key: str) -> tuple[str, ...]:
    """Return the values a choice key takes; empty for keys that are no choice."""
    return tuple(get_args(RunConfig.model_fields[key.replace("-", "_")].annotation))


def _sentence(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, config_keys(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "; `fgl run --help` lists the keys"
        return f"unknown config key '{key}'{hint}"
    if not key:
        return detail["msg"].removeprefix("Value error, ")
    rule = detail["msg"].removeprefix("Input ").removeprefix("String ").removeprefix("should ")
    if detail["type"] == "literal_error":
        rule = "be one of " + ", ".join(allowed_values(key))
    return f"config key '{key}' must {rule}, got {value!r}"

"""The run config: every key of ``[tool.flwr.app.config]``, typed, with its rule.

Flower passes run config values through unchecked. :func:`parse_config` is the border: whatever gets past
it can be relied on everywhere else.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fgl_app.config.choices import (
    NO_DATASET,
    TRACKERS,
    Augmentation,
    DiffusionSpace,
    EmbeddingDtype,
    GeneratorDtype,
    GeneratorScheduler,
    InnerStrategy,
    Method,
    NoiseSchedule,
    Offload,
    Partitioning,
    Precision,
    PredictionType,
    Prompts,
    Sampler,
    UNetName,
)
from fgl_app.config.methods import BASELINES, METHODS, MethodSpec, describe_method_default
from fgl_app.config.templates import check_template, default_template


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunConfig(BaseModel):
    """A validated run config. Keys are kebab-case on the outside, snake_case here."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_kebab, allow_inf_nan=False
    )

    # What runs
    method: Method = Field(
        "fgl",
        description="`fgl`; `fedddpm` or `fedddpm-plus` to train a diffusion model; `classifier` or "
        "`diffusion` for the inner strategy alone",
    )
    inner_strategy: InnerStrategy = Field(
        "fedavg",
        description="strategy of the ordinary rounds; with method=classifier or diffusion also the reference "
        "points `centralized` (all data on the server) and `local-only` (no exchange), with fedddpm the "
        "control `auxiliary-only` (corrections without rounds)",
    )
    num_server_rounds: int = Field(
        0,
        ge=0,
        le=100_000,
        description="rounds; a set-up is the first, so 1 is one-shot FGL; "
        + describe_method_default("num_server_rounds"),
    )
    num_clients: int = Field(
        0, ge=0, description="nodes to wait for before the first message; 0: those that are connected"
    )
    min_nodes: int = Field(2, ge=1, description="good replies a phase needs; with fewer the run fails")
    node_timeout: float = Field(3600.0, gt=0, description="seconds to wait for nodes and for replies")

    # Data
    dataset: str = Field(
        "digits",
        min_length=1,
        description="`digits` (embedded: 5000 real MNIST digits), or a hub id or folder for `datasets`; with "
        "sites the server's test set, or `none`: sites evaluate, and `class-subset` names the classes",
    )
    dataset_config: str = Field("", description="name of the data set's configuration, if it has several")
    image_size: int = Field(32, ge=8, le=1024, description="side of the classifier's square input, pixels")
    image_column: str = Field("", description="column of images; empty: the first of type Image")
    label_column: str = Field("", description="column of classes; empty: the first of type ClassLabel")
    domain_column: str = Field("", description="column of domains, such as styles or sites; empty: none")
    class_subset: str = Field("", description="classes to keep, names or numbers, by commas; empty: all")
    vocabulary: str = Field(
        "",
        description="words of prompts: `domainnet`, or a TOML or JSON file of `labels`, `domains` and more",
    )
    partitioning: Partitioning = Field(
        "dirichlet",
        description="how examples are split over the clients; `size`: client i gets a share of i + 1, "
        "`domain`: one domain a client; `sites`: nothing is split, each SuperNode's node config has the "
        "`data-path` of its own",
    )
    dirichlet_alpha: float = Field(
        0.01, gt=0, description="concentration of `dirichlet`: smaller is more skewed"
    )
    classes_per_client: int = Field(2, ge=1, description="classes a client holds under `pathological`")

    # The classifier and its training, the same for every method
    classifier: str = Field(
        "cnn",
        min_length=1,
        description="from scratch `cnn` (small), `resnet18`, `resnet34`, `resnet50`, `vit-small` or "
        "`convnext-tiny`; or the hub id or folder of a pretrained one",
    )
    local_epochs: int = Field(
        0, ge=0, description="epochs of a client in a round; " + describe_method_default("local_epochs")
    )
    batch_size: int = Field(
        0,
        ge=0,
        description="images in a training batch, clients and server; "
        + describe_method_default("batch_size"),
    )
    learning_rate: float = Field(
        0.0, ge=0, description="clients' step size, SGD or AdamW; " + describe_method_default("learning_rate")
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum, clients and server")
    weight_decay: float = Field(0.0002, ge=0, description="SGD weight decay, clients and server")
    augmentation: Augmentation = Field("affine", description="training augmentation of every method")
    proximal_mu: float = Field(0.01, ge=0, description="proximal weight mu of `fedprox`")
    fedopt_learning_rate: float = Field(0.01, gt=0, description="server step eta of `fedadam` and `fedyogi`")

    # FGL
    generator: str = Field(
        "embedded",
        min_length=1,
        description="text-to-image pipeline: `embedded`, a folder, or a hub id such as owner/name or "
        "owner/name@revision",
    )
    generator_lora: str = Field(
        "",
        description="LoRA weights for the generator: a safetensors file, its folder or a hub id; empty: none",
    )
    generator_dtype: GeneratorDtype = Field("auto", description="`auto`: float16 on CUDA, else float32")
    generator_offload: Offload = Field(
        "none", description="what waits in the computer's memory: whole models, or (slow) single layers"
    )
    attention_slicing: bool = Field(False, description="attend in slices: less GPU memory, slower")
    generator_scheduler: GeneratorScheduler = Field(
        "auto", description="`auto`: DPM-Solver++, or what belongs to the generator's way of training"
    )
    compile_generator: bool = Field(
        False, description="compile the denoiser: minutes at the start, faster after them"
    )
    prompts: Prompts = Field(
        "class",
        description="`class`: one prompt a class held; `instance`: a caption an image; "
        "`labels-only`: the control, class names alone, no upload",
    )
    prompt_template: str = Field(
        "",
        description="prompt with {label}, {caption} for `instance`, {domain} if there are domains; empty: "
        "the data set's own",
    )
    negative_prompt: str = Field(
        "low quality, low resolution", description="what guidance leads away from (guidance-scale > 1)"
    )
    captioner: str = Field(
        "strokes",
        min_length=1,
        description="who writes {caption}: `strokes` measures pen strokes; or the hub id or folder of an "
        "image-to-text model such as BLIP",
    )
    caption_prompt: str = Field("", description="text a captioner continues, or its task token; empty: none")
    captions_per_class: int = Field(0, ge=0, description="images of a class that a client captions; 0: all")
    embedding_dtype: EmbeddingDtype = Field("float16", description="precision of uploaded embeddings")
    images_per_class: int = Field(600, ge=1, description="synthetic images of each class")
    guidance_scale: float = Field(
        1.0, ge=1, le=50, description="classifier-free guidance; 1 is none and costs half"
    )
    num_inference_steps: int = Field(10, ge=1, le=1000, description="denoising steps an image")
    synthesis_batch_size: int = Field(
        128, ge=1, description="images denoised at a time at most; halved when memory runs out"
    )
    synthesis_workers: int = Field(
        1, ge=1, description="Ray workers that synthesize, a GPU or a share of the cores each; 1: no Ray"
    )
    ray_address: str = Field(
        "",
        pattern=r"^([\w.-]+:\d+)?$",
        description="Ray cluster of the workers, such as `host:6379`; empty: this machine alone",
    )
    synthetic_epochs: int = Field(15, ge=1, description="epochs of the first training on the synthetic set")
    synthetic_learning_rate: float = Field(0.05, gt=0, description="peak SGD learning rate of that training")
    server_epochs: int = Field(
        -1,
        ge=-1,
        description="epochs of a correction on the server's own set after an aggregation; 0 is none; "
        + describe_method_default("server_epochs"),
    )
    server_learning_rate: float = Field(
        0.0, ge=0, description="step size of those epochs; " + describe_method_default("server_learning_rate")
    )
    max_upload_mb: float = Field(
        64.0, gt=0, description="a client's larger reply is rejected, MB; weights may be twice what was sent"
    )

    # Diffusion models: methods fedddpm, fedddpm-plus and diffusion
    diffusion_space: DiffusionSpace = Field(
        "latent", description="`latent`: of the generator's autoencoder; or `pixel`"
    )
    unet: UNetName = Field("small", description="`small`, or the CIFAR-10 U-Net of the `ddpm` paper")
    class_conditional: bool = Field(True, description="whether the diffusion model is told classes")
    prediction_type: PredictionType = Field("v_prediction", description="what the U-Net predicts")
    noise_schedule: NoiseSchedule = Field("linear", description="betas over the 1000 time steps")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="decay of the average of weights; 0 is none")
    round_decay: bool = Field(True, description="let step sizes fall over the rounds, as a cosine")
    sampler: Sampler = Field("ddim", description="how images are drawn from a diffusion model")
    sampling_steps: int = Field(10, ge=1, le=1000, description="its denoising steps")
    local_pretrain_epochs: int = Field(20, ge=1, description="epochs of a client's own model in the set-up")
    local_pretrain_min_steps: int = Field(500, ge=0, description="steps of that training at least")
    auxiliary_size: int = Field(2000, ge=1, description="images sampled from the clients' own models")
    correction_window: int = Field(3, ge=1, description="rounds over which fedddpm-plus looks back")
    correction_smoothing: float = Field(0.3, ge=0, lt=1, description="weight of past losses in its mean")
    correction_threshold: float = Field(0.04, description="fall of the loss a round below which it corrects")
    max_corrections: int = Field(1, ge=0, description="corrections of fedddpm-plus at most")
    feature_extractor: str = Field(
        "auto",
        min_length=1,
        description="what Frechet distances are measured in: `auto` (the data set's own), `inception`, or a "
        "run's folder `classifier`",
    )
    metric_samples: int = Field(1000, ge=10, description="generated images of an evaluation")
    evaluate_every: int = Field(1, ge=1, description="rounds between evaluations; the last has one")
    mixed_precision: Precision = Field("auto", description="`auto`: bf16 where a GPU has it, else none")
    client_state_dir: str = Field(
        "", description="folder where clients keep captions and `scaffold` variates; empty: the user's cache"
    )

    # Where and how
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="torch device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto`: a GPU if there is one",
    )
    output_dir: str = Field("outputs", min_length=1, description="folder that gets a folder for each run")
    run_name: str = Field(
        "",
        pattern=r"^(\w[\w.-]*)?$",
        description="name of that folder: letters, digits, `_`, `.` and `-`; empty: time and method",
    )
    trackers: str = Field(
        "",
        description="who is told the numbers of each round, by commas: "
        + ", ".join(f"`{name}`" for name in TRACKERS)
        + "; empty: nobody",
    )
    resume: bool = Field(False, description="go on with the run in that folder, which died; see `fgl run -h`")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        inner = self.inner_strategy
        if inner in BASELINES and inner not in self.spec.baselines:
            takers = [repr(spec.name) for spec in METHODS.values() if inner in spec.baselines]
            raise ValueError(
                f"inner-strategy '{inner}' is a baseline and needs method {' or '.join(takers)}, "
                f"got '{self.method}'"
            )
        if inner == "scaffold" and self.mixed_precision == "fp16":
            raise ValueError("mixed-precision must not be 'fp16' with inner-strategy 'scaffold'; use 'bf16'")
        if self.num_clients and self.min_nodes > self.num_clients:
            raise ValueError(
                f"min-nodes must be at most num-clients ({self.num_clients}), got {self.min_nodes}; "
                f"set min-nodes={self.num_clients} to run with so few"
            )
        if self.resume and not self.run_name:
            raise ValueError("resume needs run-name, the folder of the run in output-dir")
        if self.resume and not self.can_resume:
            raise ValueError(f"inner-strategy '{inner}' has no rounds to resume; run it again")
        if unknown := set(self.tracker_names) - set(TRACKERS):
            raise ValueError(f"trackers must be among {', '.join(TRACKERS)}, by commas, got '{min(unknown)}'")
        if self.run_name == "latest":
            raise ValueError("run-name must not be 'latest', the link to the newest run")
        if self.partitioning == "domain" and not self.domain_column:
            raise ValueError("partitioning 'domain' needs domain-column, the column that names the domains")
        if self.dataset == "digits" and (
            self.image_column or self.label_column or self.domain_column or self.class_subset
        ):
            raise ValueError("the data set 'digits' has no columns or classes to choose; they must be empty")
        if self.clients_own_data and inner == "centralized":
            raise ValueError(
                "inner-strategy 'centralized' cannot have partitioning 'sites': it needs all data"
            )
        if self.dataset == NO_DATASET:
            self._check_without_dataset()
        check_template(self.prompt_template, self.prompts, has_domains=bool(self.domain_column))
        return self

    def _check_without_dataset(self) -> None:
        if not self.clients_own_data:
            raise ValueError("dataset 'none' needs partitioning 'sites': clients that have data of their own")
        if self.trains_diffusion or self.inner_strategy == "local-only":
            raise ValueError(
                "dataset 'none' needs method 'fgl' or 'classifier' with rounds: sites evaluate no others"
            )
        if not self.class_subset:
            raise ValueError("dataset 'none' needs class-subset, the names of all classes, by commas")

    @property
    def spec(self) -> MethodSpec:
        """The method's entry in the table of methods."""
        return METHODS[self.method]

    @property
    def clients_own_data(self) -> bool:
        """Whether each client has its data in a place of its own, rather than a part of one data set."""
        return self.partitioning == "sites"

    @property
    def can_resume(self) -> bool:
        """Whether there are rounds of a strategy to go on with."""
        return self.inner_strategy not in ("centralized", "local-only")

    @property
    def run_label(self) -> str:
        """Short name of the run: the method, or the inner strategy when it runs alone."""
        if not self.spec.setup_message or self.inner_strategy in BASELINES:
            return self.inner_strategy
        return self.method

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The trackers, each once."""
        names = (name.strip() for name in self.trackers.split(","))
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def trains_diffusion(self) -> bool:
        """Whether a diffusion model is trained, rather than a classifier."""
        return self.spec.task == "diffusion"

    @property
    def template(self) -> str:
        """The prompt template in force: the given one, or the data set's own."""
        return self.prompt_template or default_template(
            self.dataset, self.prompts, has_domains=bool(self.domain_column)
        )

    def to_run_config(self) -> dict[str, str | int | float | bool]:
        """Return the config under its outside, kebab-case keys."""
        return self.model_dump(by_alias=True)

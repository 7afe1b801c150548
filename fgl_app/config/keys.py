"""The definition of every key of ``[tool.flwr.app.config]``: type, default, rule and description."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fgl_app.config import choices
from fgl_app.config.choices import NO_DATASET, TRACKERS
from fgl_app.config.methods import BASELINES, METHODS, MethodSpec, describe_method_default
from fgl_app.config.templates import check_template, default_template


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunConfig(BaseModel):
    """A validated run config; fields are in snake_case, keys in kebab-case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_kebab, allow_inf_nan=False
    )

    # Method
    method: choices.Method = Field(
        "fgl",
        description="`fgl`; `fedddpm` or `fedddpm-plus` to train a diffusion model; `classifier` or "
        "`diffusion` for the inner strategy without a set-up",
    )
    inner_strategy: choices.InnerStrategy = Field(
        "fedavg",
        description="strategy of the ordinary rounds; with method=classifier or diffusion also the reference "
        "points `centralized` (all data on the server) and `local-only` (no exchange), with method=fedddpm "
        "also the control `auxiliary-only` (corrections without rounds)",
    )
    num_server_rounds: int = Field(
        0,
        ge=0,
        le=100_000,
        description="number of rounds, including the set-up, so 1 is one-shot FGL; "
        + describe_method_default("num_server_rounds"),
    )
    num_clients: int = Field(
        0, ge=0, description="number of nodes to wait for before the run begins; 0: the connected nodes"
    )
    min_nodes: int = Field(2, ge=1, description="valid replies each phase needs; with fewer the run fails")
    node_timeout: float = Field(3600.0, gt=0, description="seconds to wait for nodes, and for replies")

    # Data
    dataset: str = Field(
        "digits",
        min_length=1,
        description="`digits` (5000 real MNIST digits, included), or a hub id or folder for `datasets`; with "
        "`sites` the test set of the server, or `none`: sites evaluate, and `class-subset` lists the classes",
    )
    dataset_config: str = Field("", description="configuration of the dataset, if it has several")
    image_size: int = Field(32, ge=8, le=1024, description="side length of the square images, in pixels")
    image_column: str = Field("", description="image column; empty: the first column of type Image")
    label_column: str = Field("", description="label column; empty: the first column of type ClassLabel")
    domain_column: str = Field("", description="column of domains, such as styles or sites; empty: none")
    class_subset: str = Field("", description="comma-separated names or numbers of classes; empty: all")
    vocabulary: str = Field(
        "",
        description="words for prompts: `domainnet`, or a TOML or JSON file of `labels`, `domains` and more",
    )
    partitioning: choices.Partitioning = Field(
        "dirichlet",
        description="how examples are split over the clients; `size`: client i gets a share proportional to "
        "i + 1; `domain`: one domain per client; `sites`: no split, each node config has a `data-path`",
    )
    dirichlet_alpha: float = Field(0.01, gt=0, description="alpha of `dirichlet`; smaller: more label skew")
    classes_per_client: int = Field(2, ge=1, description="number of classes of a client with `pathological`")

    # The classifier and its training, the same for every method
    classifier: str = Field(
        "cnn",
        min_length=1,
        description="`cnn` (small), `resnet18`, `resnet34`, `resnet50`, `vit-small` or `convnext-tiny` from "
        "scratch; or the hub id or folder of a pretrained classifier",
    )
    local_epochs: int = Field(
        0, ge=0, description="epochs per round on each client; " + describe_method_default("local_epochs")
    )
    batch_size: int = Field(
        0,
        ge=0,
        description="training batch size, clients and server; " + describe_method_default("batch_size"),
    )
    learning_rate: float = Field(
        0.0,
        ge=0,
        description="client learning rate, SGD or AdamW; " + describe_method_default("learning_rate"),
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum, clients and server")
    weight_decay: float = Field(0.0002, ge=0, description="SGD weight decay, clients and server")
    augmentation: choices.Augmentation = Field("affine", description="augmentation of the training images")
    proximal_mu: float = Field(0.01, ge=0, description="weight mu of the proximal term of `fedprox`")
    fedopt_learning_rate: float = Field(0.01, gt=0, description="learning rate of `fedadam` and `fedyogi`")

    # FGL
    generator: str = Field(
        "embedded",
        min_length=1,
        description="text-to-image pipeline: `embedded`, a folder, or a hub id such as owner/name or "
        "owner/name@revision",
    )
    generator_lora: str = Field(
        "",
        description="LoRA weights of the generator: a safetensors file, its folder or a hub id; empty: none",
    )
    generator_dtype: choices.GeneratorDtype = Field(
        "auto", description="`auto`: float16 on CUDA, else float32"
    )
    generator_offload: choices.Offload = Field(
        "none", description="what stays in CPU memory until used: whole models, or (slow) single layers"
    )
    attention_slicing: bool = Field(False, description="attention in slices: less GPU memory, slower")
    generator_scheduler: choices.GeneratorScheduler = Field(
        "auto", description="`auto`: DPM-Solver++, or the scheduler that the generator needs"
    )
    compile_generator: bool = Field(
        False, description="compile the denoiser: minutes at the start, faster after that"
    )
    prompts: choices.Prompts = Field(
        "class",
        description="`class`: one prompt per class of the client; `instance`: one caption per image; "
        "`labels-only`: the control, only class names and no upload",
    )
    prompt_template: str = Field(
        "",
        description="prompt with {label}, {caption} for `instance`, and {domain} if there are domains; "
        "empty: the default of the dataset",
    )
    negative_prompt: str = Field(
        "low quality, low resolution", description="text that guidance steers away from (guidance-scale > 1)"
    )
    captioner: str = Field(
        "strokes",
        min_length=1,
        description="source of {caption}: `strokes` measures pen strokes; or the hub id or folder of an "
        "image-to-text model such as BLIP",
    )
    caption_prompt: str = Field("", description="text that a captioner continues, or a task token")
    captions_per_class: int = Field(0, ge=0, description="images per class that a client captions; 0: all")
    embedding_dtype: choices.EmbeddingDtype = Field(
        "float16", description="precision of the uploaded embeddings"
    )
    images_per_class: int = Field(600, ge=1, description="synthetic images per class")
    guidance_scale: float = Field(
        1.0, ge=1, le=50, description="scale of classifier-free guidance; 1 turns it off and halves the cost"
    )
    num_inference_steps: int = Field(10, ge=1, le=1000, description="denoising steps per image")
    synthesis_batch_size: int = Field(
        128, ge=1, description="largest batch of images to denoise; halved when memory runs out"
    )
    synthesis_workers: int = Field(
        1, ge=1, description="Ray workers that synthesize, each with a GPU or a share of the cores; 1: no Ray"
    )
    ray_address: str = Field(
        "",
        pattern=r"^([\w.-]+:\d+)?$",
        description="address of the Ray cluster, such as `host:6379`; empty: this machine only",
    )
    synthetic_epochs: int = Field(15, ge=1, description="epochs of the first training on the synthetic set")
    synthetic_learning_rate: float = Field(0.05, gt=0, description="peak SGD learning rate of this training")
    server_epochs: int = Field(
        -1,
        ge=-1,
        description="epochs of each correction on the server's synthetic or auxiliary set; 0: no correction; "
        + describe_method_default("server_epochs"),
    )
    server_learning_rate: float = Field(
        0.0, ge=0, description="correction learning rate; " + describe_method_default("server_learning_rate")
    )
    max_upload_mb: float = Field(
        64.0, gt=0, description="limit for a client's reply, MB; for weights at least twice what was sent"
    )
    max_weight_ratio: float = Field(
        10.0,
        ge=0,
        description="largest weight of a site, as a multiple of the median site's; 0: no limit",
    )
    max_update_ratio: float = Field(
        100.0,
        ge=0,
        description="largest update or loss of a reply, as a multiple of the median's; 0: no limit",
    )

    # Diffusion models: methods fedddpm, fedddpm-plus and diffusion
    diffusion_space: choices.DiffusionSpace = Field(
        "latent", description="`latent` (of the generator's autoencoder) or `pixel`"
    )
    unet: choices.UNetName = Field("small", description="`small`, or the CIFAR-10 U-Net of the `ddpm` paper")
    class_conditional: bool = Field(True, description="whether the diffusion model takes the class as input")
    prediction_type: choices.PredictionType = Field("v_prediction", description="what the U-Net predicts")
    noise_schedule: choices.NoiseSchedule = Field("linear", description="betas over the 1000 time steps")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="decay of the moving average of weights; 0: none")
    round_decay: bool = Field(True, description="cosine decay of the learning rates over the rounds")
    sampler: choices.Sampler = Field("ddim", description="sampler of the diffusion model")
    sampling_steps: int = Field(10, ge=1, le=1000, description="denoising steps of the sampler")
    local_pretrain_epochs: int = Field(20, ge=1, description="epochs of the clients' pre-training")
    local_pretrain_min_steps: int = Field(500, ge=0, description="minimum steps of the clients' pre-training")
    auxiliary_size: int = Field(2000, ge=1, description="number of images sampled from the clients' models")
    correction_window: int = Field(3, ge=1, description="rounds over which fedddpm-plus compares the loss")
    correction_smoothing: float = Field(0.3, ge=0, lt=1, description="weight of past losses in the mean loss")
    correction_threshold: float = Field(0.04, description="corrects if the relative gain per round is lower")
    max_corrections: int = Field(1, ge=0, description="maximum number of fedddpm-plus corrections")
    feature_extractor: str = Field(
        "auto",
        min_length=1,
        description="features of Frechet distances: `auto` (the default of the dataset), `inception`, or the "
        "folder `classifier` of a run",
    )
    metric_samples: int = Field(1000, ge=10, description="images generated for each evaluation")
    evaluate_every: int = Field(1, ge=1, description="rounds between evaluations; the last always has one")
    mixed_precision: choices.Precision = Field(
        "auto", description="`auto`: `bf16` if the GPU supports it, else `no`"
    )
    client_state_dir: str = Field(
        "", description="folder where clients keep captions and `scaffold` variates; empty: the user's cache"
    )

    # Execution
    seed: int = Field(0, ge=0, lt=2**31, description="seed of all random numbers")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="torch device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto`: a GPU if available",
    )
    output_dir: str = Field("outputs", min_length=1, description="parent folder of the run folders")
    run_name: str = Field(
        "",
        pattern=r"^(\w[\w.-]*)?$",
        description="name of the run folder: letters, digits, `_`, `.` and `-`; empty: time and method",
    )
    trackers: str = Field(
        "",
        description="trackers to log to, separated by commas: "
        + ", ".join(f"`{name}`" for name in TRACKERS)
        + "; empty: none",
    )
    resume: bool = Field(False, description="resume the interrupted run `run-name`; see `fgl run -h`")

    @model_validator(mode="after")
    def _check_ratios(self) -> Self:
        for key in ("max_weight_ratio", "max_update_ratio"):
            if 0 < getattr(self, key) < 1:
                raise ValueError(f"{_kebab(key)} must be 0 or at least 1, got {getattr(self, key)}")
        return self

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
            raise ValueError(
                f"trackers must be among {', '.join(TRACKERS)}, separated by commas, got '{min(unknown)}'"
            )
        if self.run_name == "latest":
            raise ValueError("run-name must not be 'latest', the link to the newest run")
        if self.partitioning == "domain" and not self.domain_column:
            raise ValueError("partitioning 'domain' needs domain-column, the column that names the domains")
        if self.dataset == "digits" and (
            self.image_column or self.label_column or self.domain_column or self.class_subset
        ):
            raise ValueError("dataset 'digits' does not take image-, label- or domain-column or class-subset")
        if self.clients_own_data and inner == "centralized":
            raise ValueError(
                "inner-strategy 'centralized' cannot have partitioning 'sites': the server needs all data"
            )
        if self.dataset == NO_DATASET:
            self._check_without_dataset()
        check_template(self.prompt_template, self.prompts, has_domains=bool(self.domain_column))
        return self

    def _check_without_dataset(self) -> None:
        if not self.clients_own_data:
            raise ValueError("dataset 'none' needs partitioning 'sites', where each client has its own data")
        if self.trains_diffusion or self.inner_strategy == "local-only":
            raise ValueError(
                "dataset 'none' needs method 'fgl' or 'classifier' with rounds: sites only evaluate those"
            )
        if not self.class_subset:
            raise ValueError("dataset 'none' needs class-subset, the names of all classes (comma-separated)")

    @property
    def spec(self) -> MethodSpec:
        """The method's entry in the table of methods."""
        return METHODS[self.method]

    @property
    def clients_own_data(self) -> bool:
        """Whether each client has its own data instead of a part of one dataset."""
        return self.partitioning == "sites"

    @property
    def can_resume(self) -> bool:
        """Whether the run has rounds that can be resumed."""
        return self.inner_strategy not in ("centralized", "local-only")

    @property
    def run_label(self) -> str:
        """Short name of the run: the method, or the inner strategy when it runs without a set-up."""
        if not self.spec.setup_message or self.inner_strategy in BASELINES:
            return self.inner_strategy
        return self.method

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The names of the trackers, without duplicates."""
        names = (name.strip() for name in self.trackers.split(","))
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def trains_diffusion(self) -> bool:
        """Whether the run trains a diffusion model instead of a classifier."""
        return self.spec.task == "diffusion"

    @property
    def template(self) -> str:
        """The prompt template: the configured one, or the default of the dataset."""
        return self.prompt_template or default_template(
            self.dataset, self.prompts, has_domains=bool(self.domain_column)
        )

    def to_run_config(self) -> dict[str, str | int | float | bool]:
        """Return the config with kebab-case keys."""
        return self.model_dump(by_alias=True)

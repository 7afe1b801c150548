"""The model card in the folder of the weights."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tools.digits_generator.fonts import Font
from tools.digits_generator.quality import (
    CLASSIFIER_SEEDS,
    GUIDANCES,
    IMAGES_A_CLASS,
    SAMPLING_STEPS,
    Quality,
)
from tools.digits_generator.recipe import Recipe

_TEMPLATE = Path(__file__).with_name("model_card.md")
_LIBRARIES = ("torch", "diffusers", "transformers", "freetype-py", "scikit-image", "mlxtend")


@dataclass(frozen=True)
class Size:
    """Number of parameters of ``text_encoder``, ``unet`` and ``vae``, and size of the folder in bytes."""

    parameters: dict[str, int]
    total_bytes: int


def model_card(recipe: Recipe, fonts: list[Font], size: Size, quality: Quality, device: str) -> str:
    """Return the text of the model card.

    Parameters
    ----------
    recipe : Recipe
        Settings of the training.
    fonts : list of Font
        Rendered fonts.
    size : Size
        Size of the model.
    quality : Quality
        Measurements.
    device : str
        Device of training and measurements.
    """
    return _TEMPLATE.read_text().format(
        **size.parameters,
        **asdict(recipe),
        parameters=sum(size.parameters.values()) / 1e6,
        megabytes=size.total_bytes / 1e6,
        steps=SAMPLING_STEPS,
        procedural=1 - recipe.font_share - recipe.printed_share,
        handwritten=recipe.font_share,
        printed=recipe.printed_share,
        degraded=recipe.degraded_share,
        libraries=", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        images=IMAGES_A_CLASS,
        seeds=", ".join(map(str, CLASSIFIER_SEEDS)),
        accuracy=_accuracy_rows(quality),
        correlation="\n".join(
            f"| {guidance} | " + " | ".join(f"{r:.2f}" for r in quality.correlation[guidance].values()) + " |"
            for guidance in GUIDANCES
        ),
        device=device,
        speed=", ".join(f"{quality.images_per_second[g]:.0f} images/s at guidance {g}" for g in GUIDANCES),
        fonts=_font_rows(fonts),
    )


def _font_rows(fonts: list[Font]) -> str:
    rows = [
        f"| {font.name} | {font.version} | {font.licence} | {'printed' if font.printed else 'handwritten'} |"
        for font in fonts
    ]
    return "\n".join(["| font | version | licence | kind |", "|---|---|---|---|", *rows])


def _accuracy_rows(quality: Quality) -> str:
    rows = [
        f"| synthetic, guidance {guidance}, {SAMPLING_STEPS} steps | "
        f"{_range(quality.accuracy[guidance, False])} | {_range(quality.accuracy[guidance, True])} |"
        for guidance in GUIDANCES
    ]
    control = (
        f"| as many renders (control) | {_range(quality.control[False])} | {_range(quality.control[True])} |"
    )
    return "\n".join([*rows, control])


def _range(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f} ({100 * min(values):.1f}-{100 * max(values):.1f})"

"""Train the embedded generator: fonts, renders, autoencoder, U-Net and text encoder, model card."""

import argparse
import time
from pathlib import Path

import torch

from tools.digits_generator.diffusion import train_text_to_latents
from tools.digits_generator.fonts import install_fonts
from tools.digits_generator.model_card import Size, model_card
from tools.digits_generator.pipeline import (
    MODEL_CARD,
    build_pipeline,
    folder_size,
    put_in_place,
    save_pipeline,
)
from tools.digits_generator.quality import measure_quality
from tools.digits_generator.recipe import Recipe
from tools.digits_generator.renders import make_renders, save_contact_sheet
from tools.digits_generator.vae import train_vae

_SIZE_LIMIT = 6_000_000


def main() -> None:
    """Run all steps and replace the folder of the model."""
    arguments, recipe = _parse()
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
    )
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    fonts = install_fonts(arguments.work_dir)
    renders = make_renders(fonts, recipe)
    save_contact_sheet(renders.images[::101], arguments.work_dir / "renders.png")
    vae = train_vae(renders.images, recipe.vae_steps, device)
    model = train_text_to_latents(renders, vae, recipe, device)

    candidate = arguments.work_dir / "candidate"
    parts = {"text_encoder": model.text_encoder, "unet": model.unet, "vae": vae}
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    save_pipeline(build_pipeline(model, vae), candidate)
    size = Size(parameters, folder_size(candidate))
    if size.total_bytes > _SIZE_LIMIT:
        raise ValueError(f"the folder must have at most {_SIZE_LIMIT} bytes, but it has {size.total_bytes}.")
    quality = measure_quality(candidate, renders, recipe.seed, device)
    card = model_card(recipe, fonts, size, quality, _device_words(device))
    (candidate / MODEL_CARD).write_text(card)
    put_in_place(candidate, arguments.out)
    print(
        f"done: {folder_size(arguments.out)} bytes in {arguments.out}, {time.monotonic() - started:.0f} s",
        flush=True,
    )


def _device_words(device: torch.device) -> str:
    return "one GPU" if device.type == "cuda" else f"{torch.get_num_threads()} CPU cores"


def _parse() -> tuple[argparse.Namespace, Recipe]:
    defaults = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m tools.digits_generator",
        description=f"{__doc__} About 30 minutes on two idle CPU cores.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--work-dir", type=Path, required=True, help="folder for fonts and intermediate results"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the finished model; replaced when done"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--renders", type=int, default=defaults.renders, help="clean renders, a multiple of 5000"
    )
    parser.add_argument(
        "--vae-steps", type=int, default=defaults.vae_steps, help="batches for the autoencoder"
    )
    parser.add_argument(
        "--unet-steps", type=int, default=defaults.unet_steps, help="batches for U-Net and text encoder"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of every step")
    arguments = parser.parse_args()
    try:
        recipe = Recipe(
            renders=arguments.renders,
            vae_steps=arguments.vae_steps,
            unet_steps=arguments.unet_steps,
            seed=arguments.seed,
        )
    except ValueError as error:
        parser.error(str(error))
    return arguments, recipe


if __name__ == "__main__":
    main()

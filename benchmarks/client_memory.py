"""Peak memory of a client's part of a text-to-image pipeline and of the whole pipeline: docs/results.md.

Each is measured in its own process. Without --generator a pipeline of the size of Stable Diffusion 2.1 is
built from its config, with random weights (2.6 GB on disk).

    python -m benchmarks.client_memory
    python -m benchmarks.client_memory --generator FOLDER_OR_HUB_ID
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.models.generators import embedded_generator
from fgl_app.models.pipelines import Placement, load_pipeline, load_text_encoder

PROMPTS = [f"class {number}, real world images, high resolution" for number in range(10)]
PARTS = {
    "the embedded text encoder, mostly imports": "imports",
    "a client: text encoder": "client",
    "the whole pipeline": "server",
}


def save_full_size_pipeline(folder: Path) -> None:
    """Save a randomly initialised pipeline of the size of Stable Diffusion 2.1 base, in half precision."""
    import diffusers
    import transformers

    tokenizer = transformers.CLIPTokenizer.from_pretrained(embedded_generator() / "tokenizer")
    text_config = transformers.CLIPTextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        projection_dim=512,
        hidden_act="gelu",
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),
        use_linear_projection=True,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text_config),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)


def load(part: str, generator: str) -> int:
    """Load a part, encode prompts with it, and return this process's peak memory in bytes."""
    placement = Placement(torch.device("cpu"))
    if part == "make":
        save_full_size_pipeline(Path(generator))
    elif part == "imports":
        load_text_encoder("embedded", placement)
    else:
        load_part = load_text_encoder if part == "client" else load_pipeline
        encode_texts(load_part(generator, placement), PROMPTS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(part: str, generator: str) -> int:
    """Return the peak memory of :func:`load` in its own process, in bytes."""
    # This process stays small: the peak of a child starts at the size of its parent.
    command = [sys.executable, "-m", "benchmarks.client_memory", "--part", part, "--generator", generator]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Print a table of peak memory, in single precision on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--generator", help="folder or hub id of a text-to-image pipeline")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(load(options.part, options.generator))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not options.generator:
            measure("make", folder)
        print("| what is loaded | peak memory, GB |\n|---|---|")
        for what, part in PARTS.items():
            print(f"| {what} | {measure(part, options.generator or folder) / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Synthesis from saved embeddings, in this process or in a subprocess."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from fgl_app.config import RunConfig
from fgl_app.progress import PREFIX
from fgl_app.synthesis.engine import make_set
from fgl_app.synthesis.generator import generator_settings, load_generator
from fgl_app.synthesis.job import SynthesisJob, load_embeddings
from fgl_app.synthesis.workers import ray_workers

FOLDER = "folder: "
"""Prefix of the output line by which ``python -m fgl_app.synthesis`` returns the folder of the set."""


def synthesize_file(file: Path, out: Path, config: RunConfig) -> Path:
    """Generate the missing images of the set of saved embeddings and return its folder.

    Raises
    ------
    ValueError
        If the file has no embeddings, or embeddings of another text encoder than the generator's.
    OSError
        If the folder cannot be written.
    """
    embeddings, names, encoder = load_embeddings(file)
    settings = generator_settings(config)
    with ray_workers(config) if uses_ray(config) else nullcontext(load_generator(settings)) as maker:
        return make_set(SynthesisJob(settings, embeddings, names, encoder), out, maker)


def synthesize_in_subprocess(run: Path) -> Path:
    """Generate the synthetic set of a run folder in a subprocess and return the folder of the set.

    In a simulation this process already uses the Ray of Flower, whose clients reserve the cores and GPUs.

    Raises
    ------
    RuntimeError
        If the subprocess fails.
    """
    command = [sys.executable, "-m", "fgl_app.synthesis", str(run)]
    last, folder = "", None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                last = line.strip() or last
                if line.startswith(FOLDER):
                    folder = Path(line.removeprefix(FOLDER).rstrip("\n"))
                # Flower replaces `sys.stdout.write`: only lines written with it reach the log of the run.
                if line.startswith(PREFIX):
                    sys.stdout.write(line)
                    sys.stdout.flush()
        except BaseException:
            process.terminate()
            raise
    if process.returncode or folder is None:
        raise RuntimeError(f"synthesis on Ray workers failed: {last}")
    return folder


def uses_ray(config: RunConfig) -> bool:
    """Return whether Ray workers generate the images of a config."""
    return config.synthesis_workers > 1 or bool(config.ray_address)

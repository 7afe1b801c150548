"""Speed of the synthesis engine and of the loop of the published code: docs/results.md.

Prompts, steps, guidance, scheduler and image size are the same. Each part runs in its own process, one after
the other, for several rounds. The loop calls the pipeline with ten prompts, resizes with PIL and saves PNG
files. The time includes encoding texts but not loading the generator. The last line of output is a JSON
object of ratios.

    python -m benchmarks.synthesis                       # embedded generator, 1000 images: minutes
    python -m benchmarks.synthesis --images 800 --rounds 1
    python -m benchmarks.synthesis generator=FOLDER num-inference-steps=50 guidance-scale=2
    python -m benchmarks.synthesis --growth docs/images/synthesis_growth.png
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from diffusers import DiffusionPipeline

from fgl_app.algorithms.embedding import embed_prompts
from fgl_app.algorithms.prompts import Prompt
from fgl_app.config import RunConfig, parse_config
from fgl_app.data.shards import SHARD_SIZE
from fgl_app.launch.config_sources import parse_override
from fgl_app.results.style import BLUE, picture
from fgl_app.synthesis.engine import make_set
from fgl_app.synthesis.generator import generator_settings, load_generator
from fgl_app.synthesis.job import SynthesisJob
from fgl_app.synthesis.workers import ray_workers, synthesize_on_workers

LOOP_BATCH = 10
RAY = str(Path(sys.executable).with_name("ray"))


def published_loop(config: RunConfig, pipeline: DiffusionPipeline, classes: int, folder: Path) -> int:
    """Generate images like the published code, one step after the other."""
    guided = config.guidance_scale > 1
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        prompt = config.template.format(label=f"class {label}")
        for start in range(0, config.images_per_class, LOOP_BATCH):
            number = min(LOOP_BATCH, config.images_per_class - start)
            images = pipeline(
                [prompt] * number,
                negative_prompt=[config.negative_prompt] * number if guided else None,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
            ).images
            for index, image in enumerate(images, start):
                resized = image.resize((config.image_size, config.image_size))
                resized.save(folder / str(label) / f"{index}.png")
    return classes * config.images_per_class


def make_job(config: RunConfig, pipeline: DiffusionPipeline, classes: int) -> SynthesisJob:
    """Return a job with one encoded prompt per class."""
    prompts = [Prompt(config.template.format(label=f"class {label}"), label, 1) for label in range(classes)]
    names = tuple(f"class {label}" for label in range(classes))
    return SynthesisJob(generator_settings(config), embed_prompts(pipeline, prompts), names)


def engine(config: RunConfig, pipeline: DiffusionPipeline, classes: int, folder: Path) -> int:
    """Generate the same images with the engine, in this process."""
    job = make_job(config, pipeline, classes)
    make_set(job, folder, pipeline)
    return len(job.plan)


def measure(part: str, config: RunConfig, classes: int) -> dict[str, float]:
    """Return rate, seconds and peak memory of a part, measured in this process."""
    pipeline = load_generator(generator_settings(config))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        images = {"loop": published_loop, "engine": engine}[part](
            config, pipeline, classes, Path(folder) / "set"
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
    return {"images_per_second": images / seconds, "seconds": seconds, "peak_mb": peak, "peak_gpu_mb": gpu}


def measure_workers(workers: int, config: RunConfig, classes: int) -> dict[str, float]:
    """Return the rate of Ray workers of one core each, after all have loaded the generator."""
    with ray_cluster(workers) as address:
        here = config.model_copy(update={"synthesis_workers": workers, "ray_address": address})
        job = make_job(here, load_generator(generator_settings(config)), classes)
        if job.num_shards < 2 * workers:
            raise SystemExit(f"--images must be at least {(2 * workers - 1) * SHARD_SIZE + 1}")
        arrivals = []
        with ray_workers(here) as shares:
            for number, _ in synthesize_on_workers(
                shares.adapt(job), range(job.num_shards), shares, lambda _: None
            ):
                arrivals.append((time.perf_counter(), job.size(number)))
    # The first shard of each worker includes loading the generator.
    (start, _), *rest = arrivals[workers - 1 :]
    return {"images_per_second": sum(size for _, size in rest) / (rest[-1][0] - start)}


@contextmanager
def ray_cluster(cores: int) -> Iterator[str]:
    """Start a Ray cluster of one node on loopback and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A killed Ray leaves its address in its folder, where every later Ray without an address looks for it.
    home = tempfile.mkdtemp(prefix="ray-")
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={cores}"]
    node = subprocess.Popen(
        [*command, "--node-ip-address=127.0.0.1", "--include-dashboard=false"],
        env=os.environ | {"RAY_TMPDIR": home},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"127.0.0.1:{port}"
    try:
        while subprocess.run(
            [RAY, "status", "--address", address], capture_output=True, check=False
        ).returncode:
            if node.poll() is not None:
                raise SystemExit("Ray did not start")
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        shutil.rmtree(home)


def measure_in_process(part: str, overrides: list[str], images: int, classes: int) -> dict[str, float]:
    """Measure a part in its own process."""
    command = [sys.executable, "-m", "benchmarks.synthesis", "--part", part, *overrides]
    done = subprocess.run(
        [*command, "--images", str(images), "--classes", str(classes)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(overrides: list[str], images: int, classes: int, rounds: int) -> dict[str, float]:
    """Measure all parts in turn, print the results, and return the ratios."""
    parts = ("loop", "engine", "1", "2")
    rates: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(rounds):
        for part in parts:
            result = measure_in_process(part, overrides, images, classes)
            rates[part].append(result["images_per_second"])
            names = {"1": "one Ray worker of one core", "2": "two Ray workers of one core each"}
            numbers = ", ".join(f"{key} {value:.1f}" for key, value in result.items())
            print(f"{names.get(part, part)}: {numbers}", flush=True)

    def ratio(part: str, other: str) -> float:
        return round(median(a / b for a, b in zip(rates[part], rates[other], strict=True)), 2)

    return {
        "images": images,
        "speedup_vs_published_loop": ratio("engine", "loop"),
        "speedup_two_workers": ratio("2", "1"),
    }


def growth(overrides: list[str], file: Path) -> dict[str, float]:
    """Measure, print and plot time against number of images, classes and workers."""

    def seconds(images: int, classes: int) -> tuple[float, float]:
        result = measure_in_process("engine", overrides, images, classes)
        print(f"{images} images, {classes} classes: {result}", flush=True)
        return result["seconds"], result["peak_mb"]

    sizes, kinds = (1000, 2000, 5000, 10000, 20000), (1, 10, 100)
    by_images = {size: seconds(size, 10) for size in sizes}
    by_classes = {number: seconds(2000, number)[0] for number in kinds}
    rates = {number: measure_in_process(str(number), overrides, 2000, 10) for number in (1, 2)}
    by_workers = {number: 2000 / rate["images_per_second"] for number, rate in rates.items()}
    print(f"seconds by workers: {by_workers}")
    panels = {
        "images": {size: each[0] for size, each in by_images.items()},
        "classes": by_classes,
        "Ray workers": by_workers,
    }
    subtitle = f"seconds, of 2000 images or 10 classes; {' '.join(overrides)}"
    with picture(file, 2.9, "Time to synthesize", subtitle) as figure:
        for axes, (what, points) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.plot(
                list(points),
                list(points.values()),
                "o-",
                color=BLUE,
                linewidth=2,
                markersize=5,
                clip_on=False,
            )
            axes.set_ylim(0, 1.1 * max(points.values()))
            axes.set_xlabel(what)
            axes.set_xticks([0, max(points) // 2, max(points)])
            axes.grid(axis="y")
    return {
        "seconds_20000_by_1000": by_images[20000][0] / by_images[1000][0],
        "peak_mb_1000": by_images[1000][1],
        "peak_mb_20000": by_images[20000][1],
    }


def main() -> None:
    """Measure, and print the ratios as a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="config values; guidance-scale=2 by default"
    )
    parser.add_argument("--images", type=int, default=1000, help="total number of images of a measurement")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each part; ratios are medians")
    parser.add_argument("--growth", type=Path, metavar="PNG", help="time against images, classes, workers")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    if options.growth:
        print(json.dumps(growth(options.overrides, options.growth)))
        return
    if not options.part:
        print(json.dumps(compare(options.overrides, options.images, options.classes, options.rounds)))
        return
    given = dict(parse_override(text) for text in ("guidance-scale=2", *options.overrides))
    config = parse_config(given | {"images-per-class": options.images // options.classes})
    if options.part in ("1", "2"):
        result = measure_workers(int(options.part), config, options.classes)
    else:
        result = measure(options.part, config, options.classes)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""How simulated clients share the CPUs and GPUs of this machine."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The number of CPUs and NVIDIA GPUs of this machine that this process can use."""

    cpus: int
    gpus: int

    @classmethod
    def detect(cls) -> Machine:
        """Return the resources of this machine."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(usable or 1, _count_gpus())


def federation_config(clients: int, machine: Machine, gpus_per_client: float | None) -> str:
    """Return the value of ``flwr run --federation-config``: number and resources of simulated clients.

    Clients get equal numbers of whole CPUs; as many clients run at a time as there are CPUs for. Without
    ``gpus_per_client``, the clients that run at a time share the GPUs equally.
    """
    cpus_per_client = max(1, machine.cpus // clients)
    concurrent = min(clients, machine.cpus)
    if gpus_per_client is None:
        # Rounded down: with shares that add up to more than one GPU, one client would wait.
        share = 1 / math.ceil(concurrent / machine.gpus) if machine.gpus else 0.0
        gpus_per_client = math.floor(share * 10_000) / 10_000
    # Flower starts client processes for all CPUs of Ray, even with fewer clients.
    values = {
        "num-supernodes": clients,
        "client-resources-num-cpus": cpus_per_client,
        "client-resources-num-gpus": gpus_per_client,
        "init-args-num-cpus": cpus_per_client * concurrent,
    }
    return " ".join(f"{key}={value}" for key, value in values.items())


def _count_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())

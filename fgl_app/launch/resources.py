"""How the simulated clients share the CPUs and GPUs of this machine."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What this process may use of its machine.

    Attributes
    ----------
    cpus, gpus : int
        CPUs and NVIDIA GPUs.
    """

    cpus: int
    gpus: int

    @classmethod
    def detect(cls) -> Machine:
        """Look at the machine."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(usable or 1, _count_gpus())


def federation_config(clients: int, machine: Machine, gpus_per_client: float | None) -> str:
    """Return Flower's federation config: how many clients there are and what each may use.

    Parameters
    ----------
    clients : int
        Simulated clients (SuperNodes).
    machine : Machine
        Its CPUs are shared out evenly in whole CPUs; as many clients run at a time as find one.
    gpus_per_client : float or None
        Share of a GPU that a client takes; None lets those that run at a time share the GPUs evenly.

    Returns
    -------
    str
        For ``flwr run --federation-config``.
    """
    each = max(1, machine.cpus // clients)
    together = min(clients, machine.cpus)
    if gpus_per_client is None:
        # Rounded down: shares that add up to more than a GPU would keep one client waiting.
        share = 1 / math.ceil(together / machine.gpus) if machine.gpus else 0.0
        gpus_per_client = math.floor(share * 10_000) / 10_000
    # Flower starts a client process for all CPUs that Ray has, however few clients there are.
    values = {
        "num-supernodes": clients,
        "client-resources-num-cpus": each,
        "client-resources-num-gpus": gpus_per_client,
        "init-args-num-cpus": each * together,
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

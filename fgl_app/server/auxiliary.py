"""FedDDPM's auxiliary set: each client's share, sampled from the model that it uploaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledLatents
from fgl_app.messages.records import load_weights
from fgl_app.progress import log
from fgl_app.strategies.exchange import ClientFailure
from fgl_app.strategies.fedddpm import LocalModel

LARGEST = 1000.0
"""Images and latents have a scale of 1 here, and a model that draws larger values than this is broken.

With few steps even an untrained one stays within hundreds: 1 / sqrt(alpha-bar_T) is 157 with linear betas.
"""


def sample_shares(
    clients: Iterable[LocalModel],
    model: nn.Module,
    draw: Callable[[Tensor, Sequence[torch.Generator]], LabeledLatents],
    *,
    seed: int,
    on_rejected: Callable[[ClientFailure], None] | None = None,
) -> tuple[LabeledLatents, dict[str, int]]:
    """Sample each client's share of the auxiliary set, in its own proportions of classes.

    Parameters
    ----------
    clients : Iterable[LocalModel]
        The uploads.
    model : nn.Module
        Gets the weights of one after the other.
    draw : Callable[[Tensor, Sequence[Generator]], LabeledLatents]
        Draws a sample of ``model`` for each label (int64, shape (N,)) and noise stream.
    seed : int
        Seed of the noise.
    on_rejected : Callable[[ClientFailure], None] or None, default None
        Told of each client whose model draws no images.

    Returns
    -------
    tuple[LabeledLatents, dict[str, int]]
        The set, client after client, and how many of it are of each site.

    Raises
    ------
    ValueError
        When no model draws images.
    """
    parts: list[LabeledLatents] = []
    shares: dict[str, int] = {}
    for number, client in enumerate(clients):
        if not client.num_images:
            continue
        load_weights(model, client.state)
        by_class = apportion(client.label_counts.tolist() or [1], client.num_images)
        labels = torch.arange(len(by_class)).repeat_interleave(torch.tensor(by_class))
        noise = [seeded_generator("auxiliary", seed, number, i) for i in range(len(labels))]
        samples = draw(labels, noise)
        if samples.latents.abs().max() < LARGEST:
            parts.append(samples)
            shares[client.site] = shares.get(client.site, 0) + client.num_images
            continue
        reason = f"its model draws values beyond {LARGEST:g}, or NaN"
        incident = ClientFailure(str(client.node), "auxiliary set", reason, client.site)
        log.warning("auxiliary set: %s left out: %s", incident.who, reason)
        if on_rejected:
            on_rejected(incident)
    if not parts:
        raise ValueError("no client's model draws images: nothing to make the auxiliary set of")
    auxiliary = LabeledLatents(
        torch.cat([part.latents for part in parts]), torch.cat([part.labels for part in parts])
    )
    return auxiliary, shares

"""FedDDPM's auxiliary set: each client's share, sampled from the client's uploaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledLatents
from fgl_app.algorithms.weights import load_weights
from fgl_app.progress import log
from fgl_app.strategies.exchange import ClientFailure
from fgl_app.strategies.fedddpm import LocalModel

MAX_MAGNITUDE = 1000.0
"""Images and latents have a scale of 1 here; a model whose samples exceed this value is broken.

With few steps the samples of an untrained model stay within hundreds: 1 / sqrt(alpha-bar_T) is 157 with
linear betas.
"""


def sample_shares(
    clients: Iterable[LocalModel],
    model: nn.Module,
    draw: Callable[[Tensor, Sequence[torch.Generator]], LabeledLatents],
    *,
    seed: int,
    on_rejected: Callable[[ClientFailure], None] | None = None,
) -> tuple[LabeledLatents, dict[str, int]]:
    """Sample each client's share of the auxiliary set, in the client's own proportions of classes.

    Parameters
    ----------
    clients : Iterable[LocalModel]
        The uploads.
    model : nn.Module
        Loaded with the weights of one client after another.
    draw : Callable[[Tensor, Sequence[Generator]], LabeledLatents]
        Draws a sample of ``model`` for each label (int64, shape (N,)) and random generator.
    seed : int
        Seed of the noise.
    on_rejected : Callable[[ClientFailure], None] or None, default None
        Called for each client whose model draws no images.

    Returns
    -------
    tuple[LabeledLatents, dict[str, int]]
        The set, client after client, and its number of images by site.

    Raises
    ------
    ValueError
        When no model draws images.
    """
    clients = list(clients)
    parts: list[LabeledLatents] = []
    shares: dict[int, int] = {}

    def sample(number: int, count: int) -> bool:
        """Sample a client's next images; return False when its model draws none."""
        client, first = clients[number], shares.get(number, 0)
        load_weights(model, client.state)
        by_class = apportion(client.label_counts.tolist() or [1], count)
        labels = torch.arange(len(by_class)).repeat_interleave(torch.tensor(by_class))
        generators = [seeded_generator("auxiliary", seed, number, first + i) for i in range(count)]
        samples = draw(labels, generators)
        if not samples.latents.abs().max() < MAX_MAGNITUDE:
            return False
        parts.append(samples)
        shares[number] = first + count
        return True

    for number, client in enumerate(clients):
        if not client.num_images or sample(number, client.num_images):
            continue
        reason = f"its model draws values beyond {MAX_MAGNITUDE:g}, or NaN"
        failure = ClientFailure(str(client.node), "auxiliary set", reason, client.site)
        failure.log()
        if on_rejected:
            on_rejected(failure)
    if not parts:
        raise ValueError("no client's model draws images, so the auxiliary set is empty")
    # The share of a model that was left out goes to the others.
    good = list(shares)
    missing = sum(client.num_images for client in clients) - sum(shares.values())
    for number, count in zip(good, apportion([shares[each] for each in good], missing), strict=True):
        if count and not sample(number, count):
            log.warning("auxiliary set: %d images fewer, since a model drew none this time", count)
    auxiliary = LabeledLatents(
        torch.cat([part.latents for part in parts]), torch.cat([part.labels for part in parts])
    )
    by_site: dict[str, int] = {}
    for number, count in shares.items():
        by_site[clients[number].site] = by_site.get(clients[number].site, 0) + count
    return auxiliary, by_site

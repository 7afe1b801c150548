"""The config of a request: what the app's server sends to each client, beside arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flwr.app import ConfigRecord

from fgl_app.messages.keys import (
    CHANNELS,
    CLASS_NAMES,
    CODE,
    EPOCHS,
    NUM_ROUNDS,
    PROXIMAL_MU,
    RUN,
    SERVER_ROUND,
)


@dataclass(frozen=True)
class Request:
    """The config of a request, decoded.

    Parameters
    ----------
    run : str
        The run's token, which stays when the run is resumed.
    code : str
        Version of the server's code, of :func:`fgl_app.code_version.code_version`.
    epochs : int
        Passes over the client's examples in a round.
    server_round : int
        The inner strategy's round, from 1.
    num_rounds : int
        Rounds of training in this request, without an exchange between them.
    proximal_mu : float
        FedProx's mu.
    class_names : tuple[str, ...]
        The server's classes; empty when clients hold parts of one dataset.
    channels : int
        Channels of the server's images; 0 when clients hold parts of one dataset.
    """

    run: str
    code: str
    epochs: int | None
    server_round: int
    num_rounds: int
    proximal_mu: float
    class_names: tuple[str, ...]
    channels: int


def encode_request(
    values: Mapping[str, int], *, run: str, code: str, class_names: Sequence[str] = (), channels: int = 0
) -> ConfigRecord:
    """Return the config of a request; the parameters are those of :class:`Request`.

    Parameters
    ----------
    values : Mapping[str, int]
        Entries under keys of :mod:`fgl_app.messages.keys`, such as epochs.
    run, code : str
        The run's token and the version of the server's code.
    class_names : Sequence[str], default ()
        The server's classes, for clients with data of their own.
    channels : int, default 0
        Channels of the server's images, sent with the classes.
    """
    config = ConfigRecord({**values, RUN: run, CODE: code})
    if class_names:
        config[CLASS_NAMES] = list(class_names)
        config[CHANNELS] = channels
    return config


def decode_request(config: ConfigRecord) -> Request:
    """Decode the config of a request."""
    return Request(
        run=cast(str, config[RUN]),
        code=cast(str, config[CODE]),
        epochs=cast("int | None", config.get(EPOCHS)),
        server_round=cast(int, config.get(SERVER_ROUND, 0)),
        num_rounds=cast(int, config.get(NUM_ROUNDS, 1)),
        proximal_mu=cast(float, config.get(PROXIMAL_MU, 0.0)),
        class_names=tuple(cast("list[str]", config.get(CLASS_NAMES, []))),
        channels=cast(int, config.get(CHANNELS, 0)),
    )

"""SCAFFOLD's part of a request: the round whose control variate a client continues from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from flwr.app import ConfigRecord

from fgl_app.messages.keys import CONTROL_ROUND, CONTROL_SITES
from fgl_app.messages.sites import site_digest


def control_config(
    node: int, accepted: Mapping[int, tuple[str, int]]
) -> dict[str, int | list[int] | list[str]]:
    """Return the config entries for one node.

    Parameters
    ----------
    node : int
        The node that is asked.
    accepted : Mapping[int, tuple[str, int]]
        By node id: the site's name, and the last round whose change of its variate the server accepted.
        A node that is not in it may be a known site under another id, after a resume: it receives the
        rounds of all sites, with digests of their names.
    """
    if node in accepted or not accepted:
        return {CONTROL_ROUND: accepted.get(node, ("", 0))[1]}
    sites, rounds = zip(*accepted.values(), strict=True)
    return {CONTROL_SITES: list(map(site_digest, sites)), CONTROL_ROUND: list(rounds)}


def last_accepted_round(request: ConfigRecord, site: str) -> int:
    """Return the last round whose change of a site's variate the server accepted; 0 for none.

    Parameters
    ----------
    request : ConfigRecord
        Of a training message, with the entries of :func:`control_config`.
    site : str
        The site's name.
    """
    accepted = request[CONTROL_ROUND]
    if isinstance(accepted, int):
        return accepted
    sites, rounds = cast("list[str]", request[CONTROL_SITES]), cast("list[int]", accepted)
    # For a site that had several node ids, the last entry is the newest.
    return dict(zip(sites, rounds, strict=True)).get(site_digest(site), 0)

"""Bytes exchanged between clients and server, by phase and direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Direction = Literal["uplink", "downlink"]


class TrafficLedger:
    """Count serialized bytes and messages by phase and direction.

    Uplink is client to server, downlink is server to client. ``phases`` has initial counts, as from
    :meth:`by_phase`.
    """

    def __init__(self, phases: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self._phases = {phase: dict(counts) for phase, counts in (phases or {}).items()}

    def record(self, phase: str, direction: Direction, num_bytes: int) -> None:
        """Count one message of ``num_bytes`` serialized bytes.

        Raises
        ------
        ValueError
            If the direction is unknown or the size is negative.
        """
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be 'uplink' or 'downlink', got {direction!r}")
        if num_bytes < 0:
            raise ValueError(f"num_bytes must be at least 0, got {num_bytes}")
        counts = self._phases.setdefault(
            phase, {"uplink": 0, "downlink": 0, "uplink_messages": 0, "downlink_messages": 0}
        )
        counts[direction] += num_bytes
        counts[f"{direction}_messages"] += 1

    def totals(self) -> dict[str, int]:
        """Return the total bytes in each direction, ``{"uplink": ..., "downlink": ...}``."""
        return {
            direction: sum(counts[direction] for counts in self._phases.values())
            for direction in get_args(Direction)
        }

    def by_phase(self) -> dict[str, dict[str, int]]:
        """Return a copy of the counts of each phase, in the order of their first messages.

        The keys are ``uplink`` and ``downlink`` (bytes), ``uplink_messages`` and ``downlink_messages``.
        """
        return {phase: dict(counts) for phase, counts in self._phases.items()}

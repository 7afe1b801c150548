"""What a session has got to, on disk, so that a run that died can go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.progress import log
from fgl_app.strategies.exchange import ClientFailure
from fgl_app.strategies.state import read_state, write_state

if TYPE_CHECKING:
    from fgl_app.server.session import Session

CHECKPOINT, AUXILIARY = "checkpoint.safetensors", "auxiliary.safetensors"
"""Files in the folder of a run that is not complete: its strategy's state, and what FedDDPM sampled."""
_SESSION = "session.safetensors"


def save_session(session: Session) -> None:
    """Write down what a session knows beside its strategy; nothing of it is lost with the process."""
    state = {
        "token": session.token,
        "curve": session.curve,
        "samples": session.samples,
        "outcome": session.outcome,
        "traffic": session.ledger.by_phase(),
        "seconds": session.directory.seconds,
        "rejected": [incident.to_json() for incident in session.rejected],
        "failures": [incident.to_json() for incident in session.failures],
    }
    write_state(state, session.directory.path / _SESSION)


def restore_session(session: Session) -> None:
    """Take back what :func:`save_session` wrote, if it came to that.

    Without a checkpoint of its strategy the run begins anew, but for what its clients keep under its token.
    """
    path = session.directory.path
    state = read_state(path / _SESSION) if (path / _SESSION).is_file() else None
    if state is not None:
        session.token = state["token"]
    if not (path / CHECKPOINT).is_file():
        (path / AUXILIARY).unlink(missing_ok=True)
    elif state is not None:
        session.curve, session.samples = state["curve"], state["samples"]
        session.outcome = state["outcome"]
        session.rejected = [ClientFailure(**incident) for incident in state["rejected"]]
        session.failures = [ClientFailure(**incident) for incident in state["failures"]]
        session.ledger = TrafficLedger(state["traffic"])
        session.directory.resume_clock(state["seconds"])
    session.directory.drop_rounds_after(session.last_evaluated)


def log_resume(session: Session, *, restored: bool, rounds_done: int) -> None:
    """Tell where a resumed run goes on, in its log, its events and its summary."""
    if restored and rounds_done:
        text = f"resumed after round {rounds_done} of {session.config.num_server_rounds}"
    else:
        text = "resumed with the uploads" if restored else "nothing was finished yet: beginning anew"
    log.info("%s", text)
    session.outcome["resumed_after_round"] = [*session.outcome.get("resumed_after_round", ()), rounds_done]
    session.directory.log({"event": "resumed", "rounds": rounds_done, "uploads": restored})


def delete_state_files(run: Path) -> None:
    """Delete what only a run that is not complete needs."""
    for name in (CHECKPOINT, AUXILIARY, _SESSION):
        (run / name).unlink(missing_ok=True)

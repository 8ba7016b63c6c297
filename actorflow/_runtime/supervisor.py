"""What becomes of a failed attempt: another one after a delay, or the failure of the run."""

from __future__ import annotations

from actorflow.events import Event, describe
from actorflow.retry import decide

__all__ = ["after_failure", "annotate"]


def after_failure(
    policy: object, elapsed: float, failures: int, error: BaseException
) -> tuple[float | None, BaseException]:
    """Decides on a failed attempt.

    Args:
        policy: The step's retry policy, None for none.
        elapsed: Seconds since the first failure.
        failures: Failed attempts so far, 1 at the first failure.
        error: What the attempt raised.

    Returns:
        The delay before the next attempt in seconds, None for no further attempt; and the error to end with then.
    """
    if policy is None or not isinstance(error, Exception):
        return None, error
    try:
        return decide(policy, elapsed, failures, error), error
    except Exception as exc:  # noqa: BLE001 - a policy is the user's code: its error ends the run, chained to the step's
        root = exc if exc.__cause__ is None else exc.__cause__
        root.__cause__ = error
        return None, exc


def annotate(error: BaseException, step: str, event: Event, attempt: int, run_id: str) -> None:
    """Says on the error itself where it happened."""
    note = f"in step {step}, attempt {attempt}, event {describe(event)}, run {run_id}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)

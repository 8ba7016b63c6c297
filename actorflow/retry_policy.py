"""Names that ported programs import from ``workflows.retry_policy``: ours, and tenacity's own objects.

tenacity is imported when the first of its names is asked for.

Example:
    >>> from actorflow.retry_policy import retry_policy, stop_after_attempt, wait_fixed
    >>> policy = retry_policy(wait=wait_fixed(1), stop=stop_after_attempt(2))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.retry import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryInfo,
    RetryPolicy,
    retry_policy,
)

if TYPE_CHECKING:
    from tenacity import (
        retry_all,
        retry_any,
        retry_if_exception,
        retry_if_exception_cause_type,
        retry_if_exception_message,
        retry_if_exception_type,
        retry_if_not_exception_message,
        retry_if_not_exception_type,
        retry_unless_exception_type,
        stop_after_attempt,
        stop_after_delay,
        stop_all,
        stop_any,
        stop_before_delay,
        wait_chain,
        wait_combine,
        wait_exponential,
        wait_exponential_jitter,
        wait_fixed,
        wait_full_jitter,
        wait_incrementing,
        wait_none,
        wait_random,
        wait_random_exponential,
    )
    from tenacity.retry import retry_base
    from tenacity.stop import stop_base

    # tenacity leaves these three without a declared type.
    retry_always: retry_base
    retry_never: retry_base
    stop_never: stop_base

__all__ = [
    "ConstantDelayRetryPolicy",
    "ExponentialBackoffRetryPolicy",
    "RetryInfo",
    "RetryPolicy",
    "retry_all",
    "retry_always",
    "retry_any",
    "retry_if_exception",
    "retry_if_exception_cause_type",
    "retry_if_exception_message",
    "retry_if_exception_type",
    "retry_if_not_exception_message",
    "retry_if_not_exception_type",
    "retry_never",
    "retry_policy",
    "retry_unless_exception_type",
    "stop_after_attempt",
    "stop_after_delay",
    "stop_all",
    "stop_any",
    "stop_before_delay",
    "stop_never",
    "wait_chain",
    "wait_combine",
    "wait_exponential",
    "wait_exponential_jitter",
    "wait_fixed",
    "wait_full_jitter",
    "wait_incrementing",
    "wait_none",
    "wait_random",
    "wait_random_exponential",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import tenacity  # noqa: PLC0415 (imported when first needed)

    value: object = getattr(tenacity, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

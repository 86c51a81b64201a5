"""The tries of a task that waits: how many Airflow has lost, and how many errors it may retry.

On a busy machine Airflow's scheduler can read the end of a deferral after the trigger has already resumed the task. The
scheduler then mistakes the deferral for a failure and begins another try (apache/airflow#66374, #67287). The earlier try is
lost, and the task is not at fault. A wait only reads, so it can be repeated any number of times. Airflow clears XCom before each
try, so the tries leave notes for each other in the task's state store.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException

from slipway.facts import from_dict, to_dict

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

LOSABLE = 1000  # retries of a task that defers; most of them are for lost tries
TRIES = "tries"  # the key in the task's state store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """What the tries of a task leave for the next one."""

    cleared: int  # how often the run was cleared when this was written: a cleared run begins again
    lost: int = 0
    deferred: int | None = None  # the number of a try that was deferred and has not been resumed


class WaitRetries(RetryPolicy):
    """Retries at most `most` errors. The task's `retries` is larger, to leave room for tries that Airflow loses."""

    def __init__(self, most: int) -> None:
        self.most = most

    def evaluate(
        self,
        exception: BaseException,  # noqa: ARG002 - all errors count
        try_number: int,  # noqa: ARG002 - see own_tries
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,
    ) -> RetryDecision:
        """Fail if the task has used all its own tries. Airflow did not lose this one, also if its trigger failed: it ended here."""
        if context is not None:
            note_resumption(context)
            if own_tries(context) > self.most:
                return RetryDecision.fail(f"failed in {self.most + 1} tries")
        return RetryDecision.default()


def retries_of_a_wait(most: int, *, delay_s: int) -> dict[str, Any]:
    """The arguments of a task that defers: `most` retries after errors, and as many as needed after lost tries."""
    return {"retries": LOSABLE, "retry_delay": timedelta(seconds=delay_s), "retry_policy": WaitRetries(most)}


def own_tries(context: Context) -> int:
    """How many tries the task has begun since it was cleared, with this one and without those that Airflow lost."""
    ti = context["ti"]
    before = max(0, ti.max_tries - LOSABLE)  # Airflow adds the retries to the last try's number when a task is cleared
    return int(ti.try_number - before - lost_tries(context))


def lost_tries(context: Context) -> int:
    """How many tries of this task Airflow has lost since the run was cleared. A first try does not read the store."""
    return _kept(context).lost if context["ti"].try_number > 1 else 0


def count_lost_try(task: BaseOperator, context: Context) -> None:
    """Count the try before this one if Airflow lost it. Each task that defers calls this first.

    Raises AirflowFailException if the task has begun more tries than it may: a worker that dies leaves no error, so the policy
    is not asked.
    """
    number = context["ti"].try_number
    if number <= 1:
        return
    kept = _kept(context)
    if kept.deferred is not None and kept.deferred < number:
        log.warning(
            "try %d is repeated: Airflow mistook the end of its deferral for a failure (apache/airflow#66374)",
            kept.deferred,
        )
        _keep(context, replace(kept, lost=kept.lost + 1, deferred=None))
    policy = getattr(task, "retry_policy", None)
    if isinstance(policy, WaitRetries) and own_tries(context) > policy.most + 1:
        raise AirflowFailException(
            f"{policy.most + 1} tries ended without a result. Next: read their logs, then clear the task"
        )


def note_deferral(context: Context) -> None:
    """Note that this try is about to defer."""
    _keep(context, replace(_kept(context), deferred=context["ti"].try_number))


def note_resumption(context: Context) -> None:
    """Note that this try was resumed, if it had deferred."""
    if (kept := _kept(context)).deferred is not None:
        _keep(context, replace(kept, deferred=None))


def _kept(context: Context) -> Tries:
    """What earlier tries left; nothing if the run has been cleared since."""
    cleared = context["dag_run"].clear_number or 0
    store = context.get("task_state_store")
    found: Any = store.get(TRIES) if store is not None else None
    kept = from_dict(Tries, found) if found else Tries(cleared=cleared)
    return kept if kept.cleared == cleared else Tries(cleared=cleared)


def _keep(context: Context, tries: Tries) -> None:
    store = context.get("task_state_store")
    if store is not None:
        store.set(TRIES, to_dict(tries))

"""How a task waits: it polls for some seconds itself, then defers to a trigger that goes on polling.

Most waits end within seconds. A deferral itself takes seconds, and Airflow can lose a try whose deferral ends soon.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

from slipway.dag.tries import note_deferral, note_resumption
from slipway.facts import JsonObject
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from slipway.dag.triggers.polling import PollingTrigger
    from slipway.errors import SlipwayError

LOOK_S = 12.0  # how long a task polls before it defers: most rollouts and gates end within that time
LOOK_POLL_S = 0.25
ONE_POLL_S = 0.5  # for a wait that takes minutes, unless it is already over
GRACE_S = 60  # how much later Airflow's own limit comes: the trigger's message names what it waited for

IN_TASK = "in_task"  # the key of an event that the task found itself

log = logging.getLogger(__name__)


class Times(TypedDict):
    """How a trigger polls: until when, as a Unix time, and how often, in seconds."""

    deadline: float
    poll_s: float


class Wait(ABC):
    """Something that a task waits for."""

    poll_s = 5.0
    look_s = LOOK_S  # how long to poll in the task

    @property
    @abstractmethod
    def limit_s(self) -> int:
        """How long to wait."""

    @abstractmethod
    def trigger(self, times: Times) -> PollingTrigger:
        """The trigger that polls."""

    @abstractmethod
    def failure(self, event: JsonObject) -> SlipwayError:
        """The error of a wait that did not pass: where, what, and what next."""


def wait_or_defer(task: BaseOperator, context: Context, wait: Wait, then: Callable[[Context, JsonObject], Any]) -> Any:
    """Call `then`, a method of the task, with what the wait found. Defer if that takes longer than some seconds."""
    deadline = time.time() + wait.limit_s
    if event := look(wait, deadline):
        return then(context, {**event, IN_TASK: True})
    note_deferral(context)
    return defer(task, wait, then.__name__, deadline)


def look(wait: Wait, deadline: float) -> JsonObject | None:
    """Poll in this process, every LOOK_POLL_S, for `look_s` seconds or what the Variable allows. None if still undecided."""
    from slipway.steps.settings import read_look_limit_s

    seconds = min(wait.look_s, read_look_limit_s())
    if seconds <= 0:
        return None
    trigger = wait.trigger({"deadline": deadline, "poll_s": LOOK_POLL_S})
    return asyncio.run(trigger.poll_until_decided(until_s=time.monotonic() + seconds))


def defer(task: BaseOperator, wait: Wait, method_name: str, deadline: float) -> NoReturn:
    """Defer the task until the wait is decided; Airflow then calls `method_name` with the trigger's event."""
    times: Times = {"deadline": deadline, "poll_s": wait.poll_s}
    timeout = timedelta(seconds=deadline - time.time() + GRACE_S)
    task.defer(trigger=wait.trigger(times), method_name=method_name, timeout=timeout)
    raise AssertionError("Airflow's defer raises")


def verdict_of_event(context: Context, event: JsonObject) -> Verdict:
    """The verdict of an event; it is also logged. Notes that Airflow resumed the task, if the task had deferred."""
    if not event.get(IN_TASK):
        note_resumption(context)
    verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
    log.info("%s", verdict)
    return verdict

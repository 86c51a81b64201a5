"""How a task waits: it defers to a trigger that polls, and Airflow resumes it with what the trigger found."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypedDict

from slipway.facts import JsonObject
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from slipway.dag.triggers.polling import PollingTrigger
    from slipway.errors import SlipwayError

GRACE_S = 60  # how much later Airflow's own limit comes: the trigger's message names what it waited for

log = logging.getLogger(__name__)


class Times(TypedDict):
    """How a trigger polls: until when, as a Unix time, and how often, in seconds."""

    deadline: float
    poll_s: float


class Wait(ABC):
    """Something that a task waits for."""

    poll_s = 5.0

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


def defer(task: BaseOperator, wait: Wait, method_name: str) -> NoReturn:
    """Defer the task until the wait is decided; Airflow then calls `method_name` with the trigger's event."""
    times: Times = {"deadline": time.time() + wait.limit_s, "poll_s": wait.poll_s}
    timeout = timedelta(seconds=wait.limit_s + GRACE_S)
    task.defer(trigger=wait.trigger(times), method_name=method_name, timeout=timeout)
    raise AssertionError("Airflow's defer raises")


def verdict_of_event(event: JsonObject) -> Verdict:
    """The verdict that a trigger's event carries, also written to the log."""
    verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
    log.info("%s", verdict)
    return verdict

"""Triggers that look at something until a judge decides. They only read: a trigger may run more than once."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from slipway.facts import JsonObject, from_dict
from slipway.release import Release
from slipway.verdict import Verdict


class PollingTrigger(BaseTrigger):
    """Looks every `poll_s` seconds; a verdict of pass or fail, or the end of time, is the event.

    `deadline` is a Unix time, so that a trigger that starts again elsewhere has no more time than it had.
    What cannot be read (an API server restarting, say) means look again, with the words in the log.
    """

    unanswered = False  # whether it failed for want of answers

    def __init__(self, *, deadline: float, poll_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow left it untyped
        self.deadline = deadline
        self.poll_s = poll_s

    @abstractmethod
    async def judge(self) -> Verdict:
        """One look."""

    def found(self) -> Any:
        """What a pass has found besides its reason."""
        return None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is decided."""
        said = ""
        while True:
            # Before the first look too: an event that comes before the scheduler has read the deferral is taken for a failure.
            await asyncio.sleep(self.poll_s)
            verdict = await self._look()
            late = verdict.outcome == "wait" and time.time() >= self.deadline
            if late:
                verdict = Verdict.failed(f"time is up: {verdict.reason}")
            if verdict.reason != said:
                said = verdict.reason
                self.log.info("%s", verdict)
            if verdict.outcome != "wait":
                own = {"unanswered": True} if self.unanswered else {}
                yield TriggerEvent({**verdict.to_dict(), "found": self.found(), "late": late, **own})
                return

    async def _look(self) -> Verdict:
        try:
            return await self.judge()
        except Exception as error:
            return Verdict.wait(f"could not look: {_words(error)}")

    def _arguments(self) -> JsonObject:
        return {"deadline": self.deadline, "poll_s": self.poll_s}


class ReleaseTrigger(PollingTrigger):
    """Looks at what has become of a release."""

    def __init__(self, *, release: JsonObject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release

    @abstractmethod
    async def look(self, release: Release) -> Verdict:
        """One look."""

    async def judge(self) -> Verdict:
        """One look at the release."""
        return await self.look(from_dict(Release, self.release))

    def _arguments(self) -> JsonObject:
        return {"release": self.release, **super()._arguments()}


def _words(error: Exception) -> str:
    words = getattr(error, "reason", None) or str(error)  # an API server's reason, not its headers
    return f"{type(error).__name__}: {' '.join(str(words).split())}"

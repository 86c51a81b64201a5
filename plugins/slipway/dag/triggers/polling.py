"""The base of the triggers that poll until a verdict is pass or fail. They only read: a trigger may run more than once."""

from __future__ import annotations

import asyncio
import math
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from slipway.errors import one_line
from slipway.facts import JsonObject, from_dict
from slipway.release import Release
from slipway.verdict import Verdict

KUBERNETES = "airflow.providers.cncf.kubernetes.hooks.kubernetes"
GKE = "airflow.providers.google.cloud.hooks.kubernetes_engine"


class PollingTrigger(BaseTrigger):
    """Polls every `poll_s` seconds. A verdict of pass or fail, or the deadline, is the event.

    `deadline` is a Unix time, so that a trigger that starts again elsewhere gets no more time. A poll that fails (because
    an API server restarts, say) is logged and repeated.
    """

    unanswered = False  # whether it failed because answers are missing
    libraries: tuple[str, ...] = (KUBERNETES,)  # that a poll needs, and that take long to load

    def __init__(self, *, deadline: float, poll_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow left it untyped
        self.deadline = deadline
        self.poll_s = poll_s

    @abstractmethod
    async def poll(self) -> Verdict:
        """Read once, and judge what was read."""

    def found(self) -> Any:
        """What the event carries next to the verdict."""
        return None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the verdict is pass or fail, or the deadline has passed."""
        await self.load()
        await asyncio.sleep(self.poll_s)  # the task has just polled
        yield TriggerEvent(await self.poll_until_decided())

    async def load(self) -> None:
        """Load the libraries in a thread: it takes a second, in which the triggerer's loop goes on with the other triggers."""
        await asyncio.to_thread(load_libraries, self.libraries)

    async def poll_until_decided(self, *, until_s: float = math.inf) -> JsonObject | None:
        """Poll until the verdict is pass or fail, or the deadline has passed: the event.

        None if it is not decided before `until_s`, in the seconds of `time.monotonic`.
        """
        last_reason = ""
        while True:
            verdict = await self.poll_or_wait()
            late = verdict.outcome == "wait" and time.time() >= self.deadline
            if late:
                verdict = Verdict.failed(f"time is up: {verdict.reason}")
            if verdict.reason != last_reason:
                last_reason = verdict.reason
                self.log.info("%s", verdict)
            if verdict.outcome != "wait":
                own = {"unanswered": True} if self.unanswered else {}
                return {**verdict.to_dict(), "found": self.found(), "late": late, **own}
            if time.monotonic() + self.poll_s > until_s:
                return None
            await asyncio.sleep(self.poll_s)

    async def poll_or_wait(self) -> Verdict:
        """Poll once; a poll that fails is a wait."""
        try:
            return await self.poll()
        except Exception as error:
            return Verdict.wait(f"polling failed: {describe_error(error)}")

    def _arguments(self) -> JsonObject:
        return {"deadline": self.deadline, "poll_s": self.poll_s}


class ReleaseTrigger(PollingTrigger):
    """Polls the state of a release."""

    def __init__(self, *, release: JsonObject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        if release["target"].get("gke"):
            self.libraries = (KUBERNETES, GKE)

    @abstractmethod
    async def poll_release(self, release: Release) -> Verdict:
        """Read the release's state once, and judge it."""

    async def poll(self) -> Verdict:
        """Poll the release."""
        return await self.poll_release(from_dict(Release, self.release))

    def _arguments(self) -> JsonObject:
        return {"release": self.release, **super()._arguments()}


def load_libraries(names: tuple[str, ...]) -> None:
    """Load modules; what cannot be loaded, the poll will say."""
    for name in names:
        with suppress(ImportError):
            import_module(name)


def describe_error(error: Exception) -> str:
    """The error's type and message in one line."""
    message = getattr(error, "reason", None) or str(error)  # an API server's reason, not its headers
    return f"{type(error).__name__}: {one_line(message, full_stop=True)}"

"""New commits of a Hub model as Airflow events, so that a refresh starts soon after a commit.

The watcher is optional, in addition to the schedule: every run resolves the revision itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from slipway.errors import SlipwayError
from slipway.facts import JsonObject
from slipway.model.model_file import ModelFile
from slipway.model.source_settings import HubSource
from slipway.names import upstream_uri

SEEN = "seen"  # a key in the Asset's state, which survives a restart of the triggerer


def watched_schedule(model: str, file: ModelFile) -> list[Asset] | AssetOrTimeSchedule:
    """The schedule of a model file with `watch`: new commits, and the file's own schedule if it has one."""
    assert isinstance(file.source, HubSource)  # noqa: S101 - ModelFile checks both
    assert file.watch is not None  # noqa: S101
    trigger = HubTrigger(
        repo=file.source.hub,
        revision=file.source.revision,
        token_conn_id=file.source.token_conn_id,
        poll_s=file.watch.poll_s,
    )
    upstream = Asset(
        name=f"{model}-upstream",
        uri=upstream_uri(model),
        group="slipway",
        watchers=[AssetWatcher(name=f"{model}-hub", trigger=trigger)],
    )
    if file.schedule is None:
        return [upstream]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(file.schedule, timezone="UTC"), assets=[upstream])


class HubTrigger(BaseEventTrigger):
    """Polls every `poll_s` seconds which commit a revision names, and fires once for each new commit.

    The first poll fires too, so that no commit is missed while the triggerer is down; a run without anything new does nothing.
    The last commit is kept in the Asset's state if Airflow provides one, else in memory.
    """

    def __init__(self, *, repo: str, revision: str, token_conn_id: str | None, poll_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow left it untyped
        self.repo = repo
        self.revision = revision
        self.token_conn_id = token_conn_id
        self.poll_s = poll_s
        self._seen: Any = None
        self._last_warning = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """For Airflow's database, and to recognise equal watchers. It never contains a token."""
        named = {"repo": self.repo, "revision": self.revision, "token_conn_id": self.token_conn_id}
        return "slipway.dag.triggers.hub.HubTrigger", {**named, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until cancelled."""
        while True:
            found = await self._poll()
            if found is not None and found != await self._last_seen():
                self.log.info("%s@%s is %s", self.repo, self.revision, found["commit"])
                yield TriggerEvent(found)
                await self._remember(found)  # after the event: a second event is harmless, a lost one is not
            await asyncio.sleep(self.poll_s)

    async def _poll(self) -> JsonObject | None:
        """The commit that the revision names now; None after an error, which is logged once."""
        from slipway.model.hub import hub_commit

        try:
            commit = await asyncio.to_thread(hub_commit, self.repo, self.revision, token_conn_id=self.token_conn_id)
        except SlipwayError as error:
            if self._last_warning != str(error):
                self._last_warning = str(error)
                self.log.warning("polling failed: %s", error)
            return None
        self._last_warning = ""
        return {"repo": self.repo, "revision": self.revision, "commit": commit}

    async def _last_seen(self) -> Any:
        if self._seen is None and self.asset_state_store is not None:
            try:
                self._seen = await self.asset_state_store.aget(SEEN)
            except Exception as error:
                self.log.warning("the Asset's state cannot be read: %s", error)
        return self._seen

    async def _remember(self, found: JsonObject) -> None:
        self._seen = found
        if self.asset_state_store is not None:
            try:
                await self.asset_state_store.aset(SEEN, {**found})
            except Exception as error:
                self.log.warning("the Asset's state cannot be written: %s", error)

"""The trigger that watches a release after its gate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from airflow.triggers.base import TriggerEvent

from slipway.dag.triggers.golden import GoldenTrigger
from slipway.dag.triggers.polling import describe_error
from slipway.errors import SlipwayError
from slipway.facts import JsonObject, Speed, from_dict
from slipway.kubernetes.server_metrics import MetricsUnread, look_at_servers
from slipway.release import Bake, Release
from slipway.serving.bake import Asked, Look, Watch, judge_look, measured_by
from slipway.serving.prometheus import PrometheusUnread, ask_number, find_prometheus
from slipway.steps.bake import closing_s, query_values
from slipway.verdict import Verdict


class BakeTrigger(GoldenTrigger):
    """Sends the golden requests and reads the metrics again and again, until the bake is over or a limit is exceeded.

    When it is over follows from the deadline, so that a restarted trigger adds no time. What was counted until then is not
    kept. `before` is how fast the release before was, if that is known.
    """

    def __init__(self, *, release_id: str, before: JsonObject | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release_id = release_id
        self.before = before
        self._watch = Watch()
        self._bake = Bake()

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        own = {"release_id": self.release_id, "before": self.before}
        return "slipway.dag.triggers.bake.BakeTrigger", {**self._arguments(), **own}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at once: the task has not, and what the servers count is the difference to the first look."""
        await self.load()
        yield TriggerEvent(await self.poll_until_decided())

    async def poll_release(self, release: Release) -> Verdict:
        """One look."""
        assert release.gate.bake is not None  # noqa: S101 - only a release with a bake has this trigger
        self._bake = release.gate.bake
        verdict = await self.within_time(self._look(release, self._bake))
        self.unanswered = verdict.outcome == "fail" and not self._watch.blames
        return verdict

    async def _look(self, release: Release, bake: Bake) -> Verdict:
        over = time.time() >= self._over_s(bake)
        await self._read()
        golden = await self._round(release, at_once=1, garbage=False)
        look = await self._with_metrics(Look(golden=golden), release, bake)
        self._watch, verdict = judge_look(self._watch, look, release.gate, before=self._before, over=over)
        return verdict

    def _over_s(self, bake: Bake) -> float:
        """When the bake is over, as a Unix time."""
        return self.deadline - closing_s(bake)

    async def _with_metrics(self, look: Look, release: Release, bake: Bake) -> Look:
        """The look with the metrics, or with why they could not be read."""
        try:
            if bake.prometheus is not None:
                return replace(look, asked=await self._ask_prometheus(release, bake))
            pods = await look_at_servers(release.target, release.model, self.release_id)
        except (MetricsUnread, PrometheusUnread, SlipwayError) as error:
            return replace(look, unread=str(error))
        except Exception as error:  # of the Kubernetes client
            return replace(look, unread=describe_error(error))
        return replace(look, tally=self._watch.tally.add(pods))

    async def _ask_prometheus(self, release: Release, bake: Bake) -> Asked:
        queries = bake.prometheus
        assert queries is not None  # noqa: S101 - the caller has checked
        server = await asyncio.to_thread(find_prometheus, queries.conn_id)
        values = query_values(
            release, self.version, self.release_id, since_s=time.time() - self._over_s(bake) + bake.for_s
        )
        found = {
            name: await ask_number(server, queries.filled(query, values))
            for name, query in (("errors", queries.errors), ("p95_ms", queries.p95_ms))
            if query is not None
        }
        return Asked(**found)

    def found(self) -> Any:
        """What was measured, for the record."""
        return measured_by(self._watch, self._bake, self._before)

    @property
    def _before(self) -> Speed | None:
        return from_dict(Speed, self.before) if self.before else None

"""The bake: the sensor that watches a release after its gate, before it counts as good."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipway.dag.deferral import Times, Wait
from slipway.dag.run import BEFORE, Run
from slipway.dag.stage import BLUE, reported_failures
from slipway.dag.task_ids import APPLY
from slipway.dag.tasks.gate import GoldenWait
from slipway.dag.tasks.waits import WaitSensor
from slipway.errors import BakeFailed, SlipwayError
from slipway.facts import JsonObject
from slipway.release import Bake
from slipway.steps.bake import closing_s, explain_bake, why_no_bake
from slipway.steps.waits import why_no_grpc
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import PollingTrigger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeWait(GoldenWait):
    """Watches a release for as long as the model file says."""

    bake: Bake
    release_id: str
    before: JsonObject | None  # how fast the release before was
    poll_s: float
    look_s = 0.0  # the trigger looks from the beginning: what the servers count is the difference to its first look

    @property
    def limit_s(self) -> int:
        """The bake's time, and some for its end."""
        return self.bake.for_s + closing_s(self.bake)

    def trigger(self, times: Times) -> PollingTrigger:
        """Sends the golden requests, and reads the metrics."""
        from slipway.dag.triggers.bake import BakeTrigger

        return BakeTrigger(**self.asked(), release_id=self.release_id, before=self.before, **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """What was beyond its limit, and the next step. Missing answers and unread metrics do not blame the release."""
        blames = event.get("late") is False and not event.get("unanswered")
        return BakeFailed(
            explain_bake(self.release, self.url, self.export.version, event["reason"], blames_release=blames),
            blames_release=blames,
            measured=event["found"],
        )


class BakeSensor(WaitSensor):
    """Watches the release at the public address, and what its servers count, until the bake is over."""

    ui_color = BLUE

    def wait_for(self, run: Run) -> Wait:
        """The looks at the release."""
        release = run.release
        bake = release.gate.bake
        assert bake is not None  # noqa: S101 - `execute` has checked
        return BakeWait(
            release=release,
            bake=bake,
            release_id=run.applied.release_id,
            export=run.export,
            url=run.address,
            grpc=run.grpc_address,
            no_grpc=why_no_grpc(release),
            before=run.result_of(APPLY, key=BEFORE),
            poll_s=float(bake.every_s),
        )

    def execute(self, context: Context) -> Any:
        """Watch the release; pass at once if this run has nothing to watch."""
        run = Run(context)
        with reported_failures(run):
            why = why_no_bake(run.release, restored=run.action == "restore")
        if why is None:
            return super().execute(context)
        verdict = Verdict.passed(f"not watched: {why}")
        log.info("bake: %s", verdict)
        run.report(verdict)
        return verdict.reason

    def measured(self, event: JsonObject) -> JsonObject:
        """What was sent, answered and counted."""
        return {"measured": event["found"]}

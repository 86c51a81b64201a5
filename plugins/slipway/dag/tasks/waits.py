"""The refresh DAG's waits: each defers to a trigger at once, and translates its verdict: pass is done, fail is red."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.run import GRPC, Run
from slipway.dag.run_lease import APPLY_S, renew_lease
from slipway.dag.stage import GRACE_S, RED, reported_failures
from slipway.facts import JsonObject, to_dict
from slipway.release import Release
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import ReleaseTrigger
    from slipway.facts import Applied, Previewed


log = logging.getLogger(__name__)


class Times(TypedDict):
    """How a trigger looks: until when, as a Unix time, and how often, in seconds."""

    deadline: float
    poll_s: float


class WaitSensor(BaseSensorOperator):
    """Defers to a trigger; what the trigger found is the task's result, its verdict goes to the record.

    With `preview` it looks at the release as it first runs beside the live one.
    """

    poll_s = 5.0

    def __init__(self, *, preview: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.preview = preview

    def release(self, run: Run) -> Release:
        """The release under the name that it is looked at by."""
        return run.release.preview if self.preview else run.release

    def applied(self, run: Run) -> Applied | Previewed:
        """What the task before has applied of it."""
        return run.previewed if self.preview else run.applied

    @abstractmethod
    def trigger(self, run: Run, times: Times) -> ReleaseTrigger:
        """The trigger that waits."""

    @abstractmethod
    def time_limit_s(self, release: Release) -> int:
        """How long to wait."""

    @abstractmethod
    def explain(self, run: Run, reason: str) -> str:
        """What a failed wait says: where, what, what next."""

    def result(self, run: Run, event: JsonObject) -> Any:  # noqa: ARG002 - the address leaves two things
        """What a passed wait leaves for later tasks."""
        return event["reason"]

    def blames_release(self, event: JsonObject) -> bool:  # noqa: ARG002 - what decides in sensors that do
        """Whether a wait that failed has found the release itself wanting: the schedule does not try that one again."""
        return False

    def execute(self, context: Context) -> Any:
        """Renew the target's Lease for as long as the wait may take, then defer."""
        run = Run(context)
        with reported_failures(run):
            renew_lease(run, self.time_limit_s(run.release) + GRACE_S)
        self.wait(run)

    def wait(self, run: Run) -> None:
        """Defer until the trigger has decided."""
        limit_s = self.time_limit_s(run.release)
        times: Times = {"deadline": time.time() + limit_s, "poll_s": self.poll_s}
        self.defer(trigger=self.trigger(run, times), method_name="decide", timeout=timedelta(seconds=limit_s + GRACE_S))

    def decide(self, context: Context, event: JsonObject) -> Any:
        """Pass on what the trigger found, or fail with the reason; what it saw counts only where the target is still this run's."""
        run, verdict = Run(context), Verdict(outcome=event["outcome"], reason=event["reason"])
        log.info("%s", verdict)
        with reported_failures(run):
            renew_lease(run, APPLY_S)
        if not self.accepts(run, verdict):
            doubt = ", which is not enough" if verdict.outcome == "inconclusive" else ""
            said = self.explain(run, f"{verdict.reason}{doubt}")
            run.report(Verdict.failed(said), bad=self.blames_release(event), **self.more(event))
            raise AirflowFailException(said)
        run.report(verdict, **self.more(event))
        return self.result(run, event)

    def accepts(self, run: Run, verdict: Verdict) -> bool:  # noqa: ARG002 - the gate's doubt depends on the run
        """Whether the run goes on."""
        return verdict.outcome == "pass"

    def more(self, event: JsonObject) -> JsonObject:  # noqa: ARG002 - most waits measure nothing
        """What the record keeps beside the verdict."""
        return {}


class RolloutSensor(WaitSensor):
    """Waits until the Deployment is what was applied, by kubectl's own rules, or will not be."""

    ui_color = RED
    poll_s = 4.0

    def trigger(self, run: Run, times: Times) -> ReleaseTrigger:
        """Judges the Deployment."""
        from slipway.dag.triggers.rollout import RolloutTrigger

        applied = self.applied(run)
        return RolloutTrigger(
            release=to_dict(self.release(run)),
            release_id=applied.release_id,
            uid=applied.uid,
            generation=applied.generation,
            **times,
        )

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.rollout_timeout_s

    def blames_release(self, event: JsonObject) -> bool:
        """Where its own containers end: not where an image, a ConfigMap, a node or a right is missing."""
        return bool(event["found"])

    def explain(self, run: Run, reason: str) -> str:
        """The reason, what pods and events say, and the next command; the pods' last lines go to the log."""
        from slipway.kubernetes.client import cluster_client
        from slipway.kubernetes.diagnosis import diagnose, most_telling, next_command

        release, release_id = self.release(run), self.applied(run).release_id
        try:
            with cluster_client(release.target) as client:
                found = diagnose(client, release, release_id)
        except Exception as error:  # a diagnosis that fails must not hide the verdict
            words = getattr(error, "reason", None) or str(error)  # an API server's reason, not its headers
            found = [f"no diagnosis: {' '.join(str(words).split())}"]
        for line in found:
            log.error("rollout: %s", line)
        told = most_telling(found, reason)
        shown = f" ({told})" if told else ""
        return f"RolloutFailed: {reason}{shown}. Next: {next_command(release, release_id, reason)}"


class AddressSensor(WaitSensor):
    """Waits until the Service can be reached from outside; leaves the URL of the REST port."""

    ui_color = RED
    poll_s = 4.0

    def execute(self, context: Context) -> Any:
        """The model file's fixed URL where it has one; else defer."""
        run = Run(context)
        release = run.release
        if not release.address:
            return super().execute(context)
        return self.result(run, {"found": {"url": release.address.rstrip("/"), "grpc": release.grpc_address}})

    def trigger(self, run: Run, times: Times) -> ReleaseTrigger:
        """Judges the Service."""
        from slipway.dag.triggers.rollout import AddressTrigger

        return AddressTrigger(release=to_dict(run.release), **times)

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.address_timeout_s

    def result(self, run: Run, event: JsonObject) -> Any:
        """The URL; where gRPC is asked is beside it."""
        found = event["found"]
        run.context["ti"].xcom_push(key=GRPC, value=found["grpc"])
        return found["url"]

    def explain(self, run: Run, reason: str) -> str:
        """The reason and the next command."""
        release = run.release
        return f"AddressMissing: {reason}. Next: {release.target.kubectl(f'describe service {release.service}')}"

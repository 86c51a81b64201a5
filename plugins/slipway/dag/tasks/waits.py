"""The tasks that wait. They translate the verdict for Airflow: pass is success, fail is red."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from slipway.dag.deferral import GRACE_S, Times, Wait, verdict_of_event, wait_or_defer
from slipway.dag.links import ServedModelLink
from slipway.dag.run import CLEARING, GRPC, Run
from slipway.dag.run_lease import APPLY_S, acquire_run_lease, renew_run_lease
from slipway.dag.stage import RED, reported_failures, say_what
from slipway.dag.task_ids import APPLY
from slipway.dag.tries import count_lost_try
from slipway.errors import AddressMissing, RolloutFailed, SlipwayError
from slipway.facts import JsonObject, to_dict
from slipway.names import model_path
from slipway.release import Release
from slipway.steps.waits import explain_address, explain_rollout, fixed_address
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import PollingTrigger
    from slipway.facts import Applied, Previewed


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutWait(Wait):
    """Waits until the Deployment is what was applied, by kubectl's own rules, or cannot become that."""

    release: Release
    applied: Applied | Previewed
    poll_s = 4.0

    @property
    def limit_s(self) -> int:
        """The model file's limit."""
        return self.release.rollout_timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Judges the Deployment and its pods."""
        from slipway.dag.triggers.rollout import RolloutTrigger

        return RolloutTrigger(
            release=to_dict(self.release),
            release_id=self.applied.release_id,
            uid=self.applied.uid,
            generation=self.applied.generation,
            **times,
        )

    def failure(self, event: JsonObject) -> SlipwayError:
        """The release is at fault if its own containers end; not if an image, a ConfigMap, a node or a right is missing."""
        reason = explain_rollout(self.release, self.applied.release_id, event["reason"])
        return RolloutFailed(reason, blames_release=bool(event["found"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressWait(Wait):
    """Waits until the Service can be reached from outside."""

    release: Release
    poll_s = 4.0

    @property
    def limit_s(self) -> int:
        """The model file's limit."""
        return self.release.address_timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Judges the Service."""
        from slipway.dag.triggers.rollout import AddressTrigger

        return AddressTrigger(release=to_dict(self.release), **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """The reason and the next command."""
        return AddressMissing(explain_address(self.release, event["reason"]))


def check_still_applied(run: Run) -> None:
    """Refuse to prove what another run has replaced since: a person cleared a wait of this run, and not `apply`.

    Raises InputRefused, StoreError.
    """
    from slipway.steps.waits import check_newest

    if run.result_of(APPLY, key=CLEARING) != run.clearing:
        check_newest(run.release)


class WaitSensor(BaseSensorOperator):
    """Waits, then passes or fails by the verdict, which goes to the record.

    With `preview` it waits for the release as it first runs next to the live one.
    """

    keeps_lease = True  # whether it renews the Lease for as long as it may wait

    def __init__(self, *, preview: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.preview = preview

    @abstractmethod
    def wait_for(self, run: Run) -> Wait:
        """What the task waits for."""

    def result(self, run: Run, event: JsonObject) -> Any:  # noqa: ARG002 - the address leaves two things
        """What a wait that passed leaves for later tasks."""
        return event["reason"]

    def goes_on(self, run: Run, verdict: Verdict) -> bool:  # noqa: ARG002 - the gate's answer depends on the run
        """Whether the run goes on."""
        return verdict.outcome == "pass"

    def measured(self, event: JsonObject) -> JsonObject:  # noqa: ARG002 - most waits measure nothing
        """What the record keeps with the verdict."""
        return {}

    def execute(self, context: Context) -> Any:
        """Renew the Lease for as long as the wait may take, then wait."""
        run = Run(context)
        count_lost_try(self, context)
        say_what(self, context)
        with reported_failures(run):
            if not self.preview:
                check_still_applied(run)
            wait = self.wait_for(run)
            if self.keeps_lease:
                renew_run_lease(run, wait.limit_s + GRACE_S)
        return wait_or_defer(self, context, wait, self.decide)

    def decide(self, context: Context, event: JsonObject) -> Any:
        """Report what the wait found, and fail unless the run goes on. It counts only if the run still holds the Lease."""
        run, verdict = Run(context), verdict_of_event(context, event)
        with reported_failures(run):
            if self.keeps_lease:
                renew_run_lease(run, APPLY_S)
            if not self.goes_on(run, verdict):
                raise self.wait_for(run).failure(event)
        run.report(verdict, **self.measured(event))
        return self.result(run, event)


class RolloutSensor(WaitSensor):
    """Waits until the Deployment is what was applied. Then deletes what the release no longer has and could fail its gate."""

    ui_color = RED

    def wait_for(self, run: Run) -> Wait:
        """The rollout of the release, or of its preview."""
        if self.preview:
            return RolloutWait(release=run.release.preview, applied=run.previewed)
        return RolloutWait(release=run.release, applied=run.applied)

    def result(self, run: Run, event: JsonObject) -> Any:
        """Why the rollout passed. Raises LeaseLost, TargetBusy, ApplyError, StoreError if it could not delete."""
        if not self.preview:
            with reported_failures(run):
                _remove_what_could_fail_the_gate(run)
        return super().result(run, event)


def _remove_what_could_fail_the_gate(run: Run) -> None:
    """Delete, under the Lease, the NetworkPolicies, workloads and the like that only earlier releases have.

    No pod of theirs is left. If the gate fails, a rollback creates again what the good release has.
    """
    from slipway.kubernetes.apply import split_outdated
    from slipway.steps.deploy import find_outdated, remove_outdated

    release = run.release
    first, _ = split_outdated(find_outdated(release, run.applied))
    if first:
        acquire_run_lease(run, APPLY_S)
        remove_outdated(release, first)


class AddressSensor(WaitSensor):
    """Waits until the Service can be reached from outside; returns the URL of the REST port.

    It runs beside the wait for the rollout, which keeps the Lease for both.
    """

    ui_color = RED
    keeps_lease = False
    operator_extra_links = (ServedModelLink(),)
    served_model = ""  # for the link

    def wait_for(self, run: Run) -> Wait:
        """The address of the release's Service."""
        return AddressWait(release=run.release)

    def execute(self, context: Context) -> Any:
        """Return the URL that the model file fixes; wait if it fixes none."""
        run = Run(context)
        if found := fixed_address(run.release):
            return self.result(run, {"found": found})
        return super().execute(context)

    def result(self, run: Run, event: JsonObject) -> Any:
        """The URL; the address for gRPC is left next to it."""
        found = event["found"]
        run.leave(GRPC, found["grpc"])
        self.served_model = f"{found['url']}{model_path(run.release.model)}"
        return found["url"]

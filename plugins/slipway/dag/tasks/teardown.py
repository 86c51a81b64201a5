"""The tasks that take a cluster away: the model's objects first, then the cluster, then a list of what Google leaves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError, HITLTriggerEventError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.dag import task_ids
from slipway.dag.deferral import GRACE_S, ONE_POLL_S, Times, Wait, verdict_of_event, wait_or_defer
from slipway.dag.run import Run
from slipway.dag.run_lease import RunLease, lease_broken_by, return_run_leases
from slipway.dag.stage import BLUE, GREY, RED, StageOperator, reported_failures, skip_if_run_only_plans
from slipway.dag.tries import count_lost_try, note_deferral, note_resumption
from slipway.errors import InputRefused, NamespaceMissing, SlipwayError, TeardownIncomplete, one_line
from slipway.facts import JsonObject, Teardown, to_dict
from slipway.names import teardown_dag_id
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import PollingTrigger
    from slipway.steps.teardown_plan import TeardownPlan

BODY = "body"  # XCom's key for what the approval shows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalWait(Wait):
    """Waits until the model's Services are gone, and their load balancers with them."""

    teardown: Teardown

    @property
    def limit_s(self) -> int:
        """The model file's limit for an address."""
        return self.teardown.address_timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Judges the Services."""
        from slipway.dag.triggers.gke import RemovalTrigger

        return RemovalTrigger(teardown=to_dict(self.teardown), **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """The reason and the next command."""
        return TeardownIncomplete(f"{event['reason']}. Next: {self.teardown.target.kubectl('describe services')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionWait(Wait):
    """Waits until the cluster is gone; with `asked` false, until Google would accept a call to delete it."""

    teardown: Teardown
    asked: bool
    look_s = ONE_POLL_S  # a cluster takes minutes

    @property
    def limit_s(self) -> int:
        """The model file's limit for the cluster."""
        return self.teardown.cluster_timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Judges the cluster."""
        from slipway.dag.triggers.gke import DeletionTrigger

        return DeletionTrigger(teardown=to_dict(self.teardown), asked=self.asked, **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """The reason and the next command."""
        return TeardownIncomplete(f"{event['reason']}. Next: {self.teardown.cluster.gcloud('describe')}")


class PlanTeardownOperator(StageOperator):
    """Lists what a teardown would take away, and refuses a cluster that is not the model's alone."""

    ui_color = BLUE

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def execute(self, context: Context) -> JsonObject:
        """The TeardownPlan as a dict; what the approval shows is left next to it."""
        plan = super().execute(context)
        Run(context).leave(BODY, plan["body"])
        return plan

    def make(self, run: Run) -> TeardownPlan:
        """The TeardownPlan."""
        from slipway.dag.forms import read_teardown_form
        from slipway.steps.settings import read_settings
        from slipway.steps.teardown_plan import check_teardown_alone, plan_teardown

        with_others = read_teardown_form(dict(run.context["params"]))
        plan = plan_teardown(Path(self.model_file), read_settings(), run_id=run.run_id)
        for line in plan.body.splitlines():
            log.info("look: %s", line)
        check_teardown_alone(plan, with_others=with_others)
        if plan.answers and (lease := RunLease.of(run, plan.teardown)):
            lease.check_free()
        return plan


def _survey(run: Run, limit_s: int) -> TeardownPlan:
    """What the teardown would delete now, compared under the Lease with what a person approved.

    A person may clear a deleting task alone, long after the tasks before it. So it relies on no earlier task but the approval.
    Without the model's namespace there can be no Lease, and nothing of the model.
    Raises ClusterInUse, TargetBusy, and InputRefused if nobody approved.
    """
    from slipway.steps.teardown_plan import replan_teardown

    asked, teardown = run.result_of(task_ids.LOOK), run.teardown
    if asked and not _is_approved(run):
        raise InputRefused(
            f"{teardown.cluster}: nobody has approved its deletion in this run. "
            f"Next: clear approve, or trigger {teardown_dag_id(teardown.model)} again"
        )
    now = replan_teardown(teardown, approved=asked)
    if now.answers and (lease := RunLease.of(run, now.teardown)):
        try:
            lease.acquire(limit_s)
        except NamespaceMissing:
            namespace = teardown.target.namespace
            log.info("%s: there is no namespace %s, so nothing of the model is there", teardown.cluster, namespace)
        now = replan_teardown(teardown, approved=asked)  # another run may have ended
    return now


def _is_approved(run: Run) -> bool:
    """Whether a person approved. The answer counts; the task's state does not, because somebody may have set it."""
    answer = run.result_of(task_ids.APPROVE) or {}
    return ApprovalOperator.APPROVE in (answer.get("chosen_options") or ())


class ApproveTeardownOperator(ApprovalOperator):
    """Asks a person whether what `look` lists may be deleted. Any answer but yes fails, and the task does not ask again.

    It asks again only if its worker died, or if Airflow lost the try that had the answer.
    """

    def execute(self, context: Context) -> Any:
        """Ask."""
        count_lost_try(self, context)
        note_deferral(context)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """The answer, which `remove_objects` and `delete_cluster` read."""
        note_resumption(context)
        try:
            return super().execute_complete(context, event)
        except HITLRejectException as error:
            raise AirflowFailException("rejected: nothing is deleted. Next: trigger again to ask again") from error
        except HITLTimeoutError as error:
            raise AirflowFailException("not answered in time: nothing is deleted. Next: trigger again") from error
        except HITLTriggerEventError as error:
            raise AirflowFailException(f"Airflow could not ask: {one_line(error)}. Next: trigger again") from error


class RemoveObjectsOperator(BaseOperator):
    """Deletes the model's recorded objects, the last applied first, and waits until their load balancers are gone."""

    ui_color = RED

    def execute(self, context: Context) -> Any:
        """Delete them. If the cluster is gone, or has no API server that answers, there is nothing to delete."""
        from slipway.kubernetes.apply import remove_objects
        from slipway.steps.teardown import open_teardown

        run = Run(context)
        skip_if_run_only_plans(run)
        count_lost_try(self, context)
        with reported_failures(run):
            now = _survey(run, run.teardown.address_timeout_s + GRACE_S)
            teardown = now.teardown
            open_teardown(teardown)
            if now.answers:
                remove_objects(teardown.target, teardown.model, teardown.objects)
        if not now.answers:
            verdict = Verdict.passed(f"{teardown.cluster}: {now.status or 'gone'}, there is nothing to remove")
            log.info("remove objects: %s", verdict)
            return verdict.reason
        return wait_or_defer(self, context, RemovalWait(teardown=teardown), self.decide)

    def decide(self, context: Context, event: JsonObject) -> str:
        """Record that nothing is left; or fail with what is."""
        from slipway.steps.teardown import record_removed_objects

        run = Run(context)
        with reported_failures(run):
            teardown, verdict = run.teardown, verdict_of_event(context, event)
            if verdict.outcome != "pass":
                raise RemovalWait(teardown=teardown).failure(event)
            record_removed_objects(teardown)
        run.report(verdict)
        return verdict.reason


class DeleteClusterOperator(BaseOperator):
    """Runs the provider's GKEDeleteClusterOperator, and waits until the cluster is gone.

    It surveys the cluster first, under the Lease, unless the run made the cluster for itself. It uses only the provider's call to
    delete, because the provider's own wait mistakes an operation that is DONE for one that succeeded. It can run again: a
    cluster that is gone counts as deleted, and it waits for a cluster that is being deleted.
    """

    ui_color = RED

    def execute(self, context: Context) -> Any:
        """Delete the cluster as soon as Google accepts it; nothing to do if it is gone."""
        from slipway.gke.cluster import judge_cluster_deletable
        from slipway.gke.lookup import find_cluster
        from slipway.steps.teardown import check_teardown_claim, record_removed_objects
        from slipway.steps.teardown_plan import check_objects_removed

        run = Run(context)
        skip_if_run_only_plans(run)
        count_lost_try(self, context)
        with reported_failures(run):
            teardown = run.teardown
            cluster = teardown.cluster
            if not teardown.temporary:
                check_objects_removed(_survey(run, teardown.cluster_timeout_s + GRACE_S))
            found = find_cluster(teardown.target.conn_id, cluster)
            check_teardown_claim(teardown, found)
            verdict = judge_cluster_deletable(cluster, found)
            log.info("delete cluster: %s", verdict)
            if found is None:
                record_removed_objects(teardown)
                run.report(verdict)
                return verdict.reason
            if verdict.outcome == "pass" and found["status"] != "STOPPING":
                self._delete(context, teardown)
        wait = DeletionWait(teardown=teardown, asked=verdict.outcome == "pass")
        return wait_or_defer(self, context, wait, self.decide)

    def decide(self, context: Context, event: JsonObject) -> Any:
        """Record that it is gone, or fail with Google's words; if it has only become deletable, delete it."""
        from slipway.steps.teardown import record_removed_objects

        run = Run(context)
        with reported_failures(run):
            teardown, verdict = run.teardown, verdict_of_event(context, event)
            if verdict.outcome != "pass":
                raise DeletionWait(teardown=teardown, asked=True).failure(event)
        if not event["found"]:
            return self.execute(context)
        with reported_failures(run):
            record_removed_objects(teardown)
        run.report(verdict)
        return verdict.reason

    def _delete(self, context: Context, teardown: Teardown) -> None:
        """The provider's call to delete. A cluster that is already being deleted, as by a call whose answer was lost, is waited for."""
        from airflow.providers.google.cloud.operators.kubernetes_engine import GKEDeleteClusterOperator
        from google.api_core.exceptions import FailedPrecondition

        from slipway.gke.lookup import find_cluster
        from slipway.google import google_errors

        cluster = teardown.cluster
        provider = GKEDeleteClusterOperator(
            task_id=self.task_id,
            location=cluster.location,
            project_id=cluster.project,
            cluster_name=cluster.name,
            gcp_conn_id=teardown.target.conn_id,
            deferrable=True,
        )
        with google_errors(str(cluster), teardown.target.conn_id):
            try:
                provider.execute(context)
            except TaskDeferred as deferred:  # to a trigger that reads no errors: ours is used instead
                log.info("delete cluster: %s", getattr(deferred.trigger, "operation_name", "begun"))
            except FailedPrecondition:
                found = find_cluster(teardown.target.conn_id, cluster)
                if found is not None and found["status"] != "STOPPING":
                    raise


class LeftoversOperator(BaseOperator):
    """Searches for what Google leaves of a cluster that is gone, and lists it with the commands that remove it."""

    ui_color = GREY

    def execute(self, context: Context) -> list[JsonObject]:
        """The leftovers, each with its command; nothing is deleted."""
        from slipway.gke.leftovers import find_leftovers

        run = Run(context)
        with reported_failures(run):
            found = find_leftovers(run.teardown)
        for one in found:
            log.warning("leftovers: %s", one)
        run.report(Verdict.passed(f"{len(found)} left: {'; '.join(map(str, found))}" if found else "nothing is left"))
        return [{**to_dict(one), "command": one.command} for one in found]


class RecordTeardownOperator(BaseOperator):
    """Closes the teardown's record, and returns the Lease if the cluster stays; cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)

    def execute(self, context: Context) -> str | None:
        """The record's URI; None if nothing was touched."""
        from slipway.steps.teardown import close_teardown

        run = Run(context)
        if run.result_of(task_ids.LOOK) is None:
            log.info("record: nothing was touched; the first task's log says why")
            return None
        states = run.states
        left = run.result_of(task_ids.LEFTOVERS) or []
        uri = close_teardown(run.teardown, run.verdicts(states), states, left, broke=lease_broken_by(run))
        log.info("record: %s", uri or "nothing was touched")
        if states.get(task_ids.DELETE_CLUSTER) != "success":
            return_run_leases(run)
        return uri

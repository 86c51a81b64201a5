"""One run as its tasks see it: the results, verdicts and states of its other tasks. Only here is XCom read and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from slipway.dag import task_ids
from slipway.dag.tries import lost_tries
from slipway.errors import InputRefused
from slipway.facts import (
    Applied,
    Export,
    Image,
    JsonObject,
    LoadTarget,
    Plan,
    Previewed,
    Proof,
    Pushed,
    Teardown,
    from_dict,
)
from slipway.release import Release
from slipway.steps.outcome import does_verdict_count, is_run_proven, with_load_verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.verdict import Verdict

BY_HAND = frozenset({"manual", "operator_triggered"})  # of Airflow's run types
ENDED = frozenset({"success", "failed"})  # of Airflow's task states: the task ran in this try of the run

# Keys in XCom.
VERDICT = "verdict"
RETURN_VALUE = "return_value"  # a task's result
PLAN_AGAIN = "plan"  # the plan that create_cluster made again, with the clearing of the run
GRPC = "grpc"  # host:port of gRPC, next to the URL that wait_for_address returns
BEFORE = "before"  # how fast the release before was, next to what `apply` applied
CLEARING = "clearing"  # how often the run had been cleared when a task left its result

# What a task's verdict is about: the result of the first of these tasks that has one. For all other tasks: of FIRST.
SUBJECTS = {
    task_ids.WAIT_FOR_PREVIEW: (task_ids.PREVIEW,),
    task_ids.PREVIEW_GATE: (task_ids.PREVIEW,),
    task_ids.PREVIEW_LOAD: (task_ids.PREVIEW,),
    task_ids.APPROVE: (task_ids.PREVIEW, task_ids.APPLY),
    task_ids.WAIT_FOR_ROLLOUT: (task_ids.APPLY,),
    task_ids.WAIT_FOR_ADDRESS: (task_ids.APPLY,),
    task_ids.GATE: (task_ids.APPLY,),
    task_ids.BAKE: (task_ids.APPLY,),
}
FIRST = (task_ids.RESOLVE, task_ids.CHOOSE, task_ids.LOOK)


@dataclass(frozen=True, slots=True)
class Run:
    """What the tasks of one run have left in XCom, and their states. A fact raises InputRefused if its task left none."""

    context: Context
    _pulled: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    def result_of(self, task_id: str, *, key: str = RETURN_VALUE) -> Any:
        """The result of a task, or what it left under another key; None if it left nothing.

        Each value is asked for once: a request to Airflow's API server takes longer than all that is done with it. A task that the
        DAG does not have is not asked for.
        """
        if (task_id, key) in self._pulled:
            return self._pulled[task_id, key]
        if (dag := self.context.get("dag")) is not None and not dag.has_task(task_id):
            return None
        found = self.context["ti"].xcom_pull(task_ids=task_id, key=key)
        if found is not None and task_id != self.context["ti"].task_id:
            self._pulled[task_id, key] = found
        return found

    def results_of(self, task_id: str) -> list[Any]:
        """The results of a task's mapped instances, without those that left none."""
        found = self.context["ti"].xcom_pull(task_ids=[task_id], key=RETURN_VALUE)
        return [one for one in found if one is not None]

    def leave(self, key: str, value: Any) -> None:
        """Leave a value of this task in XCom, next to its result."""
        self.context["ti"].xcom_push(key=key, value=value)

    def report(self, verdict: Verdict, *, bad: bool = False, **measured: Any) -> None:
        """Leave this task's verdict for the record, whether the task then passes or fails.

        `bad` means that the release itself is at fault. `measured` is kept with the verdict. The verdict names its release and
        the clearing of the run.
        """
        at, lost = datetime.now(UTC).isoformat(), lost_tries(self.context)
        release_id, _ = self._subject_of(str(self.context["ti"].task_id))
        own = {"at": at, "release": release_id, "clearing": self.clearing}
        told = {**({"bad": True} if bad else {}), **({"lost_tries": lost} if lost else {})}
        self.leave(VERDICT, {**verdict.to_dict(), **own, **measured, **told})

    def verdict_of(self, task_id: str) -> JsonObject | None:
        """A task's verdict on what the run has made; None if the task left no verdict after that was made.

        An earlier try's verdict stays in XCom until the task starts again. A task whose state a person sets does not start.
        """
        found: JsonObject | None = self.result_of(task_id, key=VERDICT)
        if not found:
            return None
        release_id, made = self._subject_of(task_id)
        return found if does_verdict_count(found, release_id=release_id, made=made) else None

    def _subject_of(self, task_id: str) -> tuple[str | None, int | None]:
        """What a task's verdict is about: the release's id (None before it is built), and the clearing in which it was made.

        What was made before the run was resolved again does not count.
        """
        tasks = (*SUBJECTS.get(task_id, ()), *FIRST)
        left = {task: result for task in tasks if (result := self.result_of(task)) is not None}
        subject = next(iter(left), None)
        if subject is None:
            return None, None
        makers = (task for task in left if task == subject or task in FIRST)
        made = [found for task in makers if (found := self.result_of(task, key=CLEARING)) is not None]
        return left[subject].get("release_id"), max(made, default=None)

    @property
    def clearing(self) -> int:
        """How often the run was cleared."""
        return self.context["dag_run"].clear_number or 0

    @property
    def states(self) -> dict[str, str]:
        """The states of this run's other tasks, by task id."""
        ti, run_id = self.context["ti"], self.context["run_id"]
        tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
        return {task: str(state) for task, state in tasks.items() if task != ti.task_id}

    def verdicts(self, states: dict[str, str]) -> dict[str, JsonObject]:
        """The verdicts that count, of the tasks that ended in this try of the run: others may have left one in an earlier try."""
        ran = (task for task, state in states.items() if state in ENDED)
        return {task: verdict for task in ran if (verdict := self.verdict_of(task))}

    def is_proven(self, states: dict[str, str], proof_task_id: str) -> bool:
        """Whether the run's release is proven; `proof_task_id` is the last of the tasks that prove it."""
        return is_run_proven(
            gate=self.verdict_of(task_ids.GATE),
            approval=self.verdict_of(task_ids.APPROVE),
            bake=self.verdict_of(task_ids.BAKE),
            baked=proof_task_id == task_ids.BAKE,
            proof_state=states.get(proof_task_id),
        )

    @property
    def run_id(self) -> str:
        """Airflow's id of the run."""
        return str(self.context["run_id"])

    @property
    def dag_id(self) -> str:
        """The id of the run's DAG."""
        return str(self.context["ti"].dag_id)

    @property
    def map_index(self) -> int:
        """The number of this task among its mapped instances."""
        return int(self.context["ti"].map_index or 0)

    @property
    def by_hand(self) -> bool:
        """Whether a person or another program triggered the run, not its schedule or an Asset."""
        run_type = self.context["dag_run"].run_type
        return str(getattr(run_type, "value", run_type)) in BY_HAND

    @property
    def only_plans(self) -> bool:
        """Whether a person asked only for the plan: then no task of the run writes anything, even if a task fails."""
        return bool(self.context.get("params", {}).get("plan_only"))

    @property
    def preview_verdict(self) -> JsonObject | None:
        """The verdict of the preview's gate, together with that of its load test if it has one; None without the gate's."""
        gate = self.verdict_of(task_ids.PREVIEW_GATE)
        return with_load_verdict(gate, self.verdict_of(task_ids.PREVIEW_LOAD)) if gate else None

    @property
    def has_release(self) -> bool:
        """Whether the run has got as far as knowing its release."""
        return bool(self.result_of(task_ids.RESOLVE) or self.result_of(task_ids.CHOOSE))

    @property
    def release(self) -> Release:
        """The release of `resolve`, or the recorded one that `choose` or `plan` brings back."""
        found = self._chosen("release") or self._planned("release")
        return from_dict(Release, found) if found else self.resolved

    @property
    def resolved(self) -> Release:
        """The release of `resolve`."""
        return from_dict(Release, self.needed(task_ids.RESOLVE))

    @property
    def teardown(self) -> Teardown:
        """What `look` plans to tear down; of a run that made its own cluster, what that run tears down."""
        from slipway.steps.teardown import teardown_of_release

        planned = self.result_of(task_ids.LOOK)
        return from_dict(Teardown, planned["teardown"]) if planned else teardown_of_release(self.release)

    @property
    def plan(self) -> Plan:
        """The plan of `plan` or `choose`; the plan of `create_cluster` if `plan` could not reach the cluster."""
        return from_dict(Plan, self._current_plan or self.needed(task_ids.PLAN))

    @property
    def action(self) -> str | None:
        """The plan's action; None before there is a plan."""
        found: str | None = self._planned("action")
        return found

    @property
    def export(self) -> Export:
        """The result of `export`; the live release's if that was skipped."""
        planned = None if self.action == "cases" else self._planned("export")
        return from_dict(Export, planned or self.needed(task_ids.EXPORT))

    @property
    def load_target(self) -> LoadTarget:
        """The result of a load test's `choose`."""
        return from_dict(LoadTarget, self.needed(task_ids.CHOOSE))

    @property
    def image(self) -> Image:
        """The result of `build_image`."""
        return from_dict(Image, self.needed(task_ids.BUILD_IMAGE))

    @property
    def proof(self) -> Proof:
        """The result of `smoke_test`."""
        return from_dict(Proof, self.needed(task_ids.SMOKE_TEST))

    @property
    def pushed(self) -> Pushed:
        """The result of `push`; the live release's if that was skipped."""
        return from_dict(Pushed, self._planned("pushed") or self.needed(task_ids.PUSH))

    @property
    def applied(self) -> Applied:
        """The result of `apply`."""
        return from_dict(Applied, self.needed(task_ids.APPLY))

    @property
    def previewed(self) -> Previewed:
        """The result of `preview`."""
        return from_dict(Previewed, self.needed(task_ids.PREVIEW))

    @property
    def address(self) -> str:
        """The URL of the REST port, from `wait_for_address`."""
        return str(self.needed(task_ids.WAIT_FOR_ADDRESS))

    @property
    def grpc_address(self) -> str | None:
        """host:port of gRPC, from `wait_for_address`; None if it is unknown."""
        found: str | None = self.result_of(task_ids.WAIT_FOR_ADDRESS, key=GRPC)
        return found

    @property
    def baseline(self) -> JsonObject | None:
        """How the live release classifies the gate's labelled set, from `plan`; None if nothing is compared with it."""
        found: JsonObject | None = self._planned("baseline")
        return found

    def needed(self, task_id: str) -> Any:
        """The result of a task. Raises InputRefused if it left none."""
        fact = self.result_of(task_id)
        if fact is None:
            raise InputRefused(f"task {task_id}: left nothing in this run. Next: clear {task_id}")
        return fact

    def _chosen(self, part: str) -> Any:
        """A part of the result of `choose`, in a run that brings a recorded release back."""
        chosen = self.result_of(task_ids.CHOOSE)
        return chosen[part] if chosen else None

    def _planned(self, part: str) -> Any:
        """A part of the plan: what it keeps of the live release, so that nothing is built."""
        plan = self._current_plan
        return plan.get(part) if plan else None

    @property
    def _current_plan(self) -> JsonObject | None:
        """The newest plan of this try of the run. A second plan from an earlier try is older than that of `plan`."""
        plan: JsonObject | None = self._chosen("plan") or self.result_of(task_ids.PLAN)
        again = self.result_of(task_ids.CREATE_CLUSTER, key=PLAN_AGAIN) if plan else None
        if again and again["clearing"] >= (self.result_of(task_ids.PLAN, key=CLEARING) or 0):
            plan = again["plan"]
        return plan

"""The refresh DAG's tasks as operators: each takes facts of earlier tasks, leaves one of its own, and decides nothing.

Facts are pulled by the names of tasks, not passed as arguments: so the graph in the UI is the story and not its wiring.
Constructors only assign. What must not be tried again becomes AirflowFailException, in one line.
"""

from __future__ import annotations

import logging
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from slipway.errors import SlipwayError
from slipway.facts import to_dict
from slipway.handover import Handover
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

Fact = dict[str, Any]

GREY, BLUE, GREEN, YELLOW, RED = "#f1f3f4", "#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6"

RETURN_VALUE = "return_value"  # XCom's key for a task's result
UNDOING = "undoing"  # XCom's key for what a rollback is bringing back
LOOK_S = 2.0
GRACE_S = 60  # Airflow's own limit stands behind the trigger's, which says what it was waiting for

log = logging.getLogger(__name__)


def task_states(context: Context) -> dict[str, str]:
    """The states of this run's other tasks, by their names."""
    ti, run_id = context["ti"], context["run_id"]
    tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
    return {task: str(state) for task, state in tasks.items() if task != ti.task_id}


@contextmanager
def one_line_failures(run: Handover) -> Iterator[None]:
    """What went wrong goes to the record in the words that the log ends with; what will not go away is not tried again."""
    try:
        yield
    except SlipwayError as error:
        said = f"{type(error).__name__}: {error}"
        run.say(Verdict.failed(said))
        if error.worth_retrying:
            raise
        raise AirflowFailException(said) from error


class StageOperator(BaseOperator):
    """A task that makes one fact of others."""

    def execute(self, context: Context) -> Fact:
        """The fact as a dict, for XCom."""
        run = Handover(context)
        with one_line_failures(run):
            return to_dict(self.make(run))

    @abstractmethod
    def make(self, run: Handover) -> Any:
        """The fact."""


class ResolveOperator(StageOperator):
    """Pins the revision, the base image and every name; refuses what cannot be meant."""

    ui_color = BLUE

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def make(self, run: Handover) -> Any:
        """The Release."""
        from slipway.params import read_params
        from slipway.resolve import read_settings, resolve

        params = read_params(dict(run.context["params"]))
        release = resolve(Path(self.model_file), params, read_settings(), run_id=run.context["run_id"])
        log.info("resolve: %s at %s on %s", release.model, release.source.revision, release.base_reference)
        return release


class PlanOperator(StageOperator):
    """Finds out what has to be done since the live release, and skips the rest: all of it where nothing changed."""

    ui_color = BLUE

    def __init__(self, *, builds: Sequence[str], deploys: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.builds = list(builds)
        self.deploys = list(deploys)

    def execute(self, context: Context) -> Fact:
        """The Plan as a dict; what it does not need is skipped from here."""
        plan = super().execute(context)
        unneeded = {"nothing": [*self.builds, *self.deploys], "manifests": self.builds}.get(plan["action"], [])
        if context["params"].get("plan_only"):
            unneeded = [*self.builds, *self.deploys]
        if not unneeded:
            return plan
        context["ti"].xcom_push(key=RETURN_VALUE, value=plan)
        raise DownstreamTasksSkipped(tasks=unneeded)

    def make(self, run: Handover) -> Any:
        """The Plan, its diff in the log."""
        from slipway.plan import differences, make_plan

        plan, previews = make_plan(run.release)
        for preview in previews:
            for line in differences(preview):
                log.info("plan: %s", line)
        log.info("plan: %s: %s", plan.action, "; ".join(plan.reasons))
        return plan


class ChooseOperator(StageOperator):
    """Finds the recorded release to go back to, and lists those there are."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Handover) -> Any:
        """The Choice."""
        from slipway.history import choose_release, describe, read_current_history
        from slipway.live import Choice, recorded
        from slipway.plan import Plan
        from slipway.resolve import read_settings
        from slipway.store import Store

        store = read_settings().store
        history = read_current_history(Store(store), self.model)
        for line in describe(history):
            log.info("choose: %s", line)
        record = choose_release(history, run.context["params"].get("release"))
        release, export, pushed = recorded(record, run_id=run.context["run_id"], store=store)
        log.info("choose: going back to release %s, version %s", record["release_id"], record["version"])
        plan = Plan(
            action="restore",
            reasons=(f"release {record['release_id']} was chosen",),
            export=export,
            pushed=pushed,
            manifests_uri=record["manifests"]["uri"],
        )
        return Choice(release=release, plan=plan)


class ExportOperator(StageOperator):
    """Writes a SavedModel with pre- and post-processing inside, and golden answers, in the exporter's own interpreter."""

    template_fields: Sequence[str] = ("exporter_python",)
    ui_color = GREEN

    def __init__(self, *, exporter_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exporter_python = exporter_python
        self._process: subprocess.Popen[str] | None = None

    def make(self, run: Handover) -> Any:
        """The Export."""
        from slipway.export import run_export

        return run_export(run.release, python=self.exporter_python, started=self._started)

    def on_kill(self) -> None:
        """The exporter ends with its task."""
        from slipway.export import end_exporter

        if self._process is not None:
            end_exporter(self._process)

    def _started(self, process: subprocess.Popen[str]) -> None:
        self._process = process


class BuildImageOperator(StageOperator):
    """Copies the model into a container of the serving image and commits it."""

    ui_color = YELLOW

    def make(self, run: Handover) -> Any:
        """The Image."""
        from slipway.image import engine, ensure_image

        release = run.release
        with engine(release) as client:
            image = ensure_image(client, release, run.export)
        log.info("image: %s is %s", image.reference, image.image_id)
        return image


class SmokeTestOperator(StageOperator):
    """Runs the image on the worker's engine and asks it every golden case over REST and gRPC, and garbage."""

    ui_color = YELLOW

    def make(self, run: Handover) -> Any:
        """The Proof. An engine that lacks the image builds it again."""
        from slipway.image import engine, ensure_image, has_image, smoke_test
        from slipway.prediction import judge_round

        release, export, image = run.release, run.export, run.image
        with engine(release) as client:
            if not has_image(client, image):
                image = ensure_image(client, release, export)
            proof = smoke_test(client, release, export, image)
        run.say(judge_round(proof.verdicts))
        return proof


class PushOperator(StageOperator):
    """Pushes the image that passed the smoke test, and reads its digest back from the registry."""

    ui_color = YELLOW

    def make(self, run: Handover) -> Any:
        """The Pushed image."""
        from slipway.image import engine, push_image

        release = run.release
        with engine(release) as client:
            pushed = push_image(client, release, run.export, run.proof)
        log.info("push: %s", pushed.reference)
        return pushed


class ApplyOperator(StageOperator):
    """Renders the manifests, opens the record, and applies them server-side: the one task that changes the cluster."""

    ui_color = RED

    def make(self, run: Handover) -> Any:
        """What was Applied."""
        from slipway.live import make_live, restore

        manifests_uri = run.plan.manifests_uri
        if manifests_uri is None:
            applied = make_live(run.release, run.export, run.pushed)
        else:
            applied = restore(run.release, run.export, run.pushed, manifests_uri)
        log.info("apply: release %s, generation %d", applied.release_id, applied.generation)
        return applied


class AnnounceOperator(BaseOperator):
    """Updates the model's Asset. Runs only after the gate, and is the leaf that gives the run its colour."""

    ui_color = GREEN

    def __init__(self, *, announces: Asset, **kwargs: Any) -> None:
        super().__init__(outlets=[announces], **kwargs)
        self.announces = announces

    def execute(self, context: Context) -> Fact:
        """What was announced."""
        run = Handover(context)
        applied = run.applied
        said: Fact = {
            "release": applied.release_id,
            "image": applied.reference,
            "version": applied.version,
            "address": run.address,
        }
        context["outlet_events"][self.announces].extra = said
        log.info("announce: %s", said)
        return said


class RollbackOperator(BaseOperator):
    """Undoes what was applied last and not proven: by this run, or by an earlier one that was killed half-way.

    The last known good release is applied again, waited for, asked its golden questions, and recorded. It runs as a
    teardown, so that it runs whatever happened and cannot turn a red run green.
    """

    ui_color = GREY

    def __init__(self, *, model: str, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> Any:
        """What was undone, once it has been; skipped where there is nothing to undo."""
        with one_line_failures(Handover(context)):
            return self._undo(context)

    def _undo(self, context: Context) -> Any:
        from slipway.history import read_current_history
        from slipway.live import judge_undo, recorded, remove_release, restore
        from slipway.resolve import read_settings
        from slipway.store import Store

        store = Store(read_settings().store)
        history = read_current_history(store, self.model)
        proven = task_states(context).get(self.proof_task_id) == "success"
        undo = judge_undo(history, run_id=context["run_id"], proven=proven)
        log.info("rollback: %s: %s", undo.action, undo.reason)
        if undo.action == "nothing":
            raise AirflowSkipException(undo.reason)
        if undo.action == "remove" and history.newest:
            remove_release(store, history.newest)
        if undo.good is None:
            return {"action": undo.action, "reason": undo.reason}
        release, export, pushed = recorded(undo.good, run_id=f"{context['run_id']}.undo", store=store.uri)
        applied = restore(release, export, pushed, undo.good["manifests"]["uri"])
        undoing: Fact = {
            "release": to_dict(release),
            "export": to_dict(export),
            "applied": to_dict(applied),
            "reason": undo.reason,
        }
        context["ti"].xcom_push(key=UNDOING, value=undoing)
        own = {name: undoing["applied"][name] for name in ("release_id", "uid", "generation")}
        return self._defer("RolloutTrigger", "rolled_out", undoing, release.rollout_timeout_s, **own)

    def rolled_out(self, context: Context, event: Fact) -> Any:
        """Go on to the address, which the release's fixed URL makes short."""
        undoing = self._undoing(context, event)
        release = undoing["release"]
        if release["address"]:
            return self.addressed(context, {**event, "found": release["address"].rstrip("/")})
        return self._defer("AddressTrigger", "addressed", undoing, release["address_timeout_s"])

    def addressed(self, context: Context, event: Fact) -> None:
        """Go on to the gate."""
        undoing = self._undoing(context, event)
        export = undoing["export"]
        own = {"url": event["found"], "version": export["version"], "golden_uri": export["golden_uri"]}
        self._defer("PredictionTrigger", "gated", undoing, undoing["release"]["gate_timeout_s"], **own)

    def gated(self, context: Context, event: Fact) -> Fact:
        """Record that the release is live again."""
        undoing = self._undoing(context, event)
        uri, release_id = self._close(undoing, event), undoing["applied"]["release_id"]
        log.info("rollback: release %s serves again: %s", release_id, event["reason"])
        return {"action": "restore", "reason": undoing["reason"], "release": release_id, "record": uri}

    def _defer(self, trigger: str, method_name: str, undoing: Fact, limit_s: int, **own: Any) -> None:
        from slipway import triggers

        self.defer(
            trigger=getattr(triggers, trigger)(
                release=undoing["release"], deadline=time.time() + limit_s, poll_s=LOOK_S, **own
            ),
            method_name=method_name,
            timeout=timedelta(seconds=limit_s + GRACE_S),
        )

    def _undoing(self, context: Context, event: Fact) -> Fact:
        """What is being undone, where the wait that ended has passed; else the record is closed and the task fails."""
        undoing: Fact = context["ti"].xcom_pull(task_ids=self.task_id, key=UNDOING)
        verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
        log.info("rollback: %s", verdict)
        if verdict.outcome == "pass":
            return undoing
        self._close(undoing, event)
        namespace = undoing["release"]["target"]["namespace"]
        said = f"RollbackFailed: release {undoing['applied']['release_id']}: {verdict.reason}. Next: kubectl -n {namespace} get pods"
        Handover(context).say(Verdict.failed(said))
        raise AirflowFailException(said)

    @staticmethod
    def _close(undoing: Fact, event: Fact) -> str:
        from slipway.facts import from_dict
        from slipway.record import close_run
        from slipway.release import Release

        release, proven = from_dict(Release, undoing["release"]), event["outcome"] == "pass"
        verdicts = {"rollback": {name: event[name] for name in ("outcome", "reason")}}
        return close_run(release, verdicts, {}, proven=proven)


class RecordOperator(BaseOperator):
    """Closes the run's record, pass or fail, as a teardown that cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where the run failed before there was a Release to record."""
        from slipway.record import close_run

        run = Handover(context)
        if run.left("resolve") is None and run.left("choose") is None:
            log.info("record: there is no release to record; the first task's log says why")
            return None
        states = task_states(context)
        verdicts = {task: said for task in states if (said := run.said(task))}
        proven = states.get(self.proof_task_id) == "success"
        uri = close_run(run.release, verdicts, states, proven=proven, undo=run.left("rollback"))
        log.info("record: %s", uri)
        return uri

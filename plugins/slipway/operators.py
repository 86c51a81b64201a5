"""The refresh DAG's tasks as operators: each takes facts of earlier tasks, leaves one of its own, and decides nothing.

Facts are pulled by the names of tasks, not passed as arguments: so the graph in the UI is the story and not its wiring.
Constructors only assign. What must not be tried again becomes AirflowFailException, in one line.
"""

from __future__ import annotations

import logging
import subprocess
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from slipway.errors import ClusterUnfit, SlipwayError
from slipway.facts import JsonObject, to_dict
from slipway.handover import RETURN_VALUE, Handover
from slipway.holding import (
    APPLY_S,
    BUILD_S,
    Hold,
    broken_by,
    give_back_forgotten,
    give_back_leases,
    held_by,
    hold_target,
    keep_target,
    let_go,
)
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


GREY, BLUE, GREEN, YELLOW, RED = "#f1f3f4", "#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6"

GRACE_S = 60  # Airflow's own limit stands behind the trigger's, which says what it was waiting for

log = logging.getLogger(__name__)


def task_states(context: Context) -> dict[str, str]:
    """The states of this run's other tasks, by their names."""
    ti, run_id = context["ti"], context["run_id"]
    tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
    return {task: str(state) for task, state in tasks.items() if task != ti.task_id}


def is_proven(run: Handover, states: dict[str, str], proof_task_id: str) -> bool:
    """Whether the gate has passed, or left a doubt that a person said yes to; a state alone may have been given by hand."""
    gate, asked = run.said("gate") or {}, run.said("approve") or {}
    word = asked if gate.get("outcome") == "inconclusive" else gate
    return states.get(proof_task_id) == "success" and word.get("outcome") == "pass"


def verdicts_of(run: Handover, states: dict[str, str]) -> dict[str, Any]:
    """What the tasks said that ran in this try of the run: one that did not may have left a word in an earlier try."""
    ran = (task for task, state in states.items() if state in {"success", "failed"})
    return {task: said for task in ran if (said := run.said(task))}


@contextmanager
def one_line_failures(run: Handover) -> Iterator[None]:
    """What went wrong goes to the record in the words that the log ends with; what will not go away is not tried again."""
    try:
        yield
    except SlipwayError as error:
        said = f"{type(error).__name__}: {error}"
        run.say(Verdict.failed(said), bad=error.blames_release)
        if error.worth_retrying:
            raise
        raise AirflowFailException(said) from error


class StageOperator(BaseOperator):
    """A task that makes one fact of others."""

    writes_s: int | None = None  # how long it may write to the target: its Lease is taken, or renewed, for as long
    keeps_s: int | None = None  # how long it may take, the target untouched: the Lease is renewed where the run has it

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        run = Handover(context)
        with one_line_failures(run):
            if self.writes_s is not None:
                hold_target(run, self.writes_s)
            if self.keeps_s is not None:
                keep_target(run, self.keeps_s)
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
        from slipway.steps.resolve import resolve
        from slipway.steps.settings import read_settings

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

    def execute(self, context: Context) -> JsonObject:
        """The Plan as a dict; what it does not need is skipped from here."""
        plan = super().execute(context)
        everything = [*self.builds, *self.deploys]
        unneeded = {"nothing": everything, "manifests": self.builds, "restore": self.builds}.get(plan["action"], [])
        if context["params"].get("plan_only"):
            unneeded = everything
        if not unneeded:
            return plan
        context["ti"].xcom_push(key=RETURN_VALUE, value=plan)
        raise DownstreamTasksSkipped(tasks=unneeded)

    def make(self, run: Handover) -> Any:
        """The Plan, its diff in the log. One that changes something is made of what is there while the run has the target."""
        from slipway.steps.plan import differences, make_plan, missing_cluster

        release = run.release
        plan, trials = make_plan(release, by_hand=run.by_hand)
        changes = plan.action != "nothing" and not run.context["params"].get("plan_only")
        if changes and missing_cluster(release.target) is None:
            hold_target(run, BUILD_S)
            plan, trials = make_plan(release, by_hand=run.by_hand, held=True)  # another run may have ended since
            if plan.action == "nothing":
                let_go(run)
        elif plan.action == "nothing" and run.context["ti"].try_number > 1:
            give_back_forgotten(run)  # by an earlier try that had something to do; nothing comes after this one
        for line in plan.orphans:
            log.warning("plan: %s", line)
        for trial in trials:
            for line in differences(trial):
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
        from slipway.facts import Choice, Plan
        from slipway.names import dag_id
        from slipway.params import read_release
        from slipway.records.history import choose_release, describe, read_current_history, recorded
        from slipway.records.store import Store
        from slipway.steps.plan import missing_cluster
        from slipway.steps.settings import read_settings

        wanted, store = read_release(dict(run.context["params"])), read_settings().store

        def choose() -> Any:
            history = read_current_history(Store(store), self.model)
            return history, choose_release(history, wanted)

        history, record = choose()
        for line in describe(history):
            log.info("choose: %s", line)
        release = recorded(record, run_id=run.context["run_id"], store=store)[0]
        if absent := missing_cluster(release.target):
            raise ClusterUnfit(f"{absent}. Next: trigger {dag_id(self.model)}, which makes it")
        if hold := Hold.of(run, release):
            hold.take(APPLY_S)
        record = choose()[1]  # another run may have ended since
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
    keeps_s = BUILD_S

    def __init__(self, *, exporter_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exporter_python = exporter_python
        self._process: subprocess.Popen[str] | None = None

    def make(self, run: Handover) -> Any:
        """The Export."""
        from slipway.model.export import run_export

        return run_export(run.release, python=self.exporter_python, started=self._started)

    def on_kill(self) -> None:
        """The exporter ends with its task."""
        from slipway.model.exporter import end_exporter

        if self._process is not None:
            end_exporter(self._process)

    def _started(self, process: subprocess.Popen[str]) -> None:
        self._process = process


class BuildImageOperator(StageOperator):
    """Copies the model into a container of the serving image and commits it."""

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Handover) -> Any:
        """The Image."""
        from slipway.image.build import ensure_image
        from slipway.image.engine import engine

        release = run.release
        with engine(release) as client:
            image = ensure_image(client, release, run.export)
        log.info("image: %s is %s", image.reference, image.image_id)
        return image


class SmokeTestOperator(StageOperator):
    """Runs the image on the worker's engine and asks it every golden case over REST and gRPC, and garbage."""

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Handover) -> Any:
        """The Proof. An engine that lacks the image builds it again."""
        from slipway.image.build import ensure_image, has_image
        from slipway.image.engine import engine
        from slipway.image.smoke_test import smoke_test
        from slipway.serving.golden import judge_round

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
    keeps_s = BUILD_S

    def make(self, run: Handover) -> Any:
        """The Pushed image."""
        from slipway.image.engine import engine
        from slipway.image.push import push_image

        release = run.release
        with engine(release) as client:
            pushed = push_image(client, release, run.export, run.proof)
        log.info("push: %s", pushed.reference)
        return pushed


class TargetOperator(StageOperator):
    """A stage that writes to the target. A cluster that the run has made has a namespace first, for the Lease to be in."""

    ui_color = RED
    writes_s = APPLY_S

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        from slipway.kubernetes.apply import ensure_namespace

        run = Handover(context)
        with one_line_failures(run):
            ensure_namespace(run.release.target)
        return super().execute(context)


class PreviewOperator(TargetOperator):
    """Runs the release beside the live one, where no user's request reaches it."""

    def make(self, run: Handover) -> Any:
        """What is Previewed; skipped where the release needs none."""
        from slipway.records.history import read_history
        from slipway.records.store import Store
        from slipway.steps.preview import start_preview, why_none

        release = run.release
        history = read_history(Store(release.store), release.model).at(release.target, release.deployment)
        if reason := why_none(release, run.plan, history):
            raise AirflowSkipException(f"no preview: {reason}")
        previewed = start_preview(release, run.export, run.pushed, check=partial(hold_target, run, APPLY_S))
        log.info("preview: release %s runs as %s", previewed.release_id, release.preview.deployment)
        return previewed


class RemovePreviewOperator(BaseOperator):
    """Deletes the preview whatever became of it, and what a killed run left of one, as a teardown."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)

    def execute(self, context: Context) -> list[str]:
        """What was deleted; skipped where the run has no release, or only plans."""
        run = Handover(context)
        if not (run.left("resolve") or run.left("choose")) or context["params"].get("plan_only"):
            raise AirflowSkipException("a run that has no release, or only plans, removes nothing")
        with one_line_failures(run):
            removed = [str(ref) for ref in self._remove(run)]
        run.say(Verdict.passed(f"removed {', '.join(removed)}" if removed else "no preview is left"))
        return removed

    @staticmethod
    def _remove(run: Handover) -> Iterable[Any]:
        """What was deleted. What is left may be the preview of a run that writes now; one that has nothing else to write keeps no Lease."""
        from slipway.records.history import left_previews, read_records
        from slipway.records.store import Store
        from slipway.steps.preview import remove_previews

        release = run.release
        store, had = Store(release.store), any(held_by(run))
        records = read_records(store, release.model).records
        if not left_previews(records, release.target):
            return remove_previews(release, records)  # which names what is left elsewhere
        hold_target(run, APPLY_S)
        try:
            return remove_previews(release, read_records(store, release.model).records)  # as that run has ended since
        finally:
            if not had:
                let_go(run)


class ApplyOperator(TargetOperator):
    """Renders the manifests, opens the record, and applies them server-side: the one task that changes what is live."""

    def make(self, run: Handover) -> Any:
        """What was Applied."""
        from slipway.steps.deploy import make_live, restore

        def check() -> None:
            hold_target(run, APPLY_S)
            if task_states(run.context).get("announce") == "skipped":  # and the rollback may have looked already
                raise AirflowFailException(
                    f"apply: somebody ended the run; nothing was written. Next: trigger {run.context['ti'].dag_id} again"
                )

        manifests_uri = run.plan.manifests_uri
        facts = (run.release, run.export, run.pushed)
        if manifests_uri is None:
            applied = make_live(*facts, check=check)
        else:
            applied = restore(*facts, manifests_uri, check=check)
        log.info("apply: release %s, generation %d", applied.release_id, applied.generation)
        return applied


class AnnounceOperator(BaseOperator):
    """Updates the model's Asset. Runs only after the gate, and is the leaf that gives the run its colour.

    Without an Asset, where nothing stays that could be asked, it is only that leaf.
    """

    ui_color = GREEN

    def __init__(self, *, announces: Asset | None, **kwargs: Any) -> None:
        super().__init__(outlets=[announces] if announces else [], **kwargs)
        self.announces = announces

    def execute(self, context: Context) -> JsonObject:
        """What was announced."""
        run = Handover(context)
        applied = run.applied
        said: JsonObject = {
            "release": applied.release_id,
            "image": applied.reference,
            "version": applied.version,
            "address": run.address,
        }
        if self.announces is not None:
            context["outlet_events"][self.announces].extra = said
        log.info("announce: %s", said)
        return said


class PruneOperator(BaseOperator):
    """Prunes what goes beyond the model file's retention, as a teardown that cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=0, **kwargs)  # what stays is pruned by the next run

    def execute(self, context: Context) -> JsonObject:
        """What was Pruned; skipped where the run has no release."""
        from slipway.steps.prune import prune

        run = Handover(context)
        if run.left("resolve") is None:
            raise AirflowSkipException("there is no release, so there is nothing to prune for")
        built, pushed = run.left("build_image"), run.left("push")
        images = [built["image_id"] if built else None, pushed["digest"] if pushed else None]
        with one_line_failures(run):
            pruned = prune(run.release, images=frozenset(filter(None, images)))
        log.info(
            "prune: %d records, %d artifacts in the store, %d images on the engine, %d in the registry",
            pruned.records, pruned.artifacts, pruned.images, pruned.registry,
        )  # fmt: skip
        return to_dict(pruned)


class RecordOperator(BaseOperator):
    """Closes the run's record, pass or fail, and gives the target's Lease back.

    It is a leaf that counts beside `announce`: of a run that a person ends, Airflow runs the teardowns, skips the rest and
    takes its colour from that, so that one that proved nothing would be green. It never turns a red run green.
    """

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=30, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where the run failed before there was a Release to record, or had nothing to do."""
        run, states = Handover(context), task_states(context)
        planned = run.left("plan") or {}
        if planned.get("action") == "nothing" or context["params"].get("plan_only"):
            log.info("record: nothing was to be done")  # a person has cleared what the plan skipped
            return None
        proven = is_proven(run, states, self.proof_task_id)
        try:
            uri = self._close(run, states, proven=proven) if run.left("resolve") or run.left("choose") else None
        finally:
            give_back_leases(run)
        log.info("record: %s", uri or "there is no release to record; the first task's log says why")
        if not proven and states.get("announce") in {"skipped", "success"}:
            where = f"record {uri}" if uri else context["run_id"]
            raise AirflowFailException(
                f"{where}: somebody ended the run, or a task of it, before its release was proven; {_left_live(run, states)}"
            )
        return uri

    @staticmethod
    def _close(run: Handover, states: dict[str, str], *, proven: bool) -> str:
        from slipway.records.record import close_run

        undo, broke = run.left("rollback"), broken_by(run)
        return close_run(run.release, verdicts_of(run, states), states, proven=proven, undo=undo, broke=broke)


def _left_live(run: Handover, states: dict[str, str]) -> str:
    """What a run that was ended by hand leaves, and what to do next."""
    undone = (run.left("rollback") or {}).get("action") if states.get("rollback") == "success" else None
    again = f"Next: trigger {run.context['ti'].dag_id} again"
    if undone == "restore":
        return f"the release before it serves again. {again}"
    if undone == "remove":
        return f"it was taken away again. {again}"
    if states.get("apply") not in {"success", "failed"}:
        return f"what serves was not touched. {again}"
    look = run.release.target.kubectl(f"describe deployment {run.release.deployment}")
    return f"what it applied was not undone. Next: {look}; then trigger {run.context['ti'].dag_id} again"

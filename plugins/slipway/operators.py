"""The refresh DAG's tasks as operators: each takes facts of earlier tasks, leaves one of its own, and decides nothing.

Facts are pulled by the names of tasks, not passed as arguments: so the graph in the UI is the story and not its wiring.
Constructors only assign. What must not be tried again becomes AirflowFailException, in one line.
"""

from __future__ import annotations

import logging
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.errors import SlipwayError
from slipway.facts import to_dict
from slipway.handover import Handover
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

Fact = dict[str, Any]

GREY, BLUE, GREEN, YELLOW, RED = "#f1f3f4", "#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6"

log = logging.getLogger(__name__)


class StageOperator(BaseOperator):
    """A task that makes one fact of others. What went wrong goes to the record in the words that the log ends with."""

    def execute(self, context: Context) -> Fact:
        """The fact as a dict, for XCom."""
        run = Handover(context)
        try:
            return to_dict(self.make(run))
        except SlipwayError as error:
            said = f"{type(error).__name__}: {error}"
            run.say(Verdict.failed(said))
            if error.worth_retrying:
                raise
            raise AirflowFailException(said) from error

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
        from slipway.live import make_live

        applied = make_live(run.release, run.export, run.pushed)
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


class RecordOperator(BaseOperator):
    """Closes the run's record, pass or fail, as a teardown that cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where the run failed before there was a Release to record."""
        from slipway.record import close_run

        ti, run = context["ti"], Handover(context)
        if run.left("resolve") is None:
            log.info("record: resolve left no release, so there is nothing to record; its log says why")
            return None
        tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[context["run_id"]]).get(context["run_id"], {})
        states = {task: str(state) for task, state in tasks.items() if task != ti.task_id}
        verdicts = {task: said for task in states if (said := run.said(task))}
        uri = close_run(run.release, verdicts, states, proven=states.get(self.proof_task_id) == "success")
        log.info("record: %s", uri)
        return uri

"""The tasks that export the model and build, test and push its image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from slipway.dag import task_ids
from slipway.dag.run import Run
from slipway.dag.run_lease import BUILD_S
from slipway.dag.stage import GREEN, YELLOW, ProgramOperator, StageOperator

if TYPE_CHECKING:
    from slipway.dag.export_pod import PodHost
    from slipway.facts import Export, Image, Proof, Pushed
    from slipway.model.exporter import ExporterHost
    from slipway.runtimes import RuntimeName

log = logging.getLogger(__name__)


class ExportOperator(ProgramOperator):
    """Exports the served model with pre- and post-processing, and golden cases, in the exporter's own interpreter or pod."""

    template_fields: Sequence[str] = ("exporter_pythons",)
    ui_color = GREEN
    keeps_s = BUILD_S
    _pod: PodHost | None = None

    def __init__(self, *, exporter_pythons: Mapping[RuntimeName, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exporter_pythons = exporter_pythons  # by runtime

    def make(self, run: Run) -> Export:
        """The Export; if only golden cases are needed, the live Export with new ones."""
        from slipway.model.export import renew_golden_cases, run_export

        host = self._host(run)
        if run.action == "cases" and (live := run.plan.export):
            return renew_golden_cases(run.release, live, host)
        return run_export(run.release, host)

    def _host(self, run: Run) -> ExporterHost:
        """Where the exporter runs."""
        if run.release.export_pod is None:
            from slipway.model.exporter import WorkerHost

            return WorkerHost(self.exporter_pythons[run.release.runtime], self._started)
        from slipway.dag.export_pod import PodHost

        self._pod = PodHost(run.context, run.release.export_pod, self._started)
        return self._pod

    def on_kill(self) -> None:
        """End the program, or delete the pod."""
        super().on_kill()
        if self._pod is not None:
            self._pod.end()


class BuildImageOperator(StageOperator):
    """Copies the model into a container of the serving image and commits it."""

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Run) -> Image:
        """The Image. Skipped, with the tasks that need one, if the live image stays and only its golden cases are new."""
        if run.action == "cases":
            raise AirflowSkipException("the live image stays, with new golden cases")
        from slipway.image.build import ensure_image
        from slipway.image.engine import engine

        release = run.release
        with engine(release) as client:
            image = ensure_image(client, release, run.export)
        log.info("image: %s is %s", image.reference, image.image_id)
        return image


class SmokeTestOperator(StageOperator):
    """Runs the image on the worker's engine and sends it every golden request over REST and gRPC, and garbage."""

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Run) -> Proof:
        """The Proof. If this worker's engine lacks the image, it builds it first."""
        from slipway.image.build import ensure_image, has_image
        from slipway.image.engine import engine
        from slipway.image.smoke_test import smoke_test
        from slipway.serving.golden import judge_round

        release, export, image = run.release, run.export, run.image
        with engine(release) as client:
            if not has_image(client, image):
                image = ensure_image(client, release, export)
            proof = smoke_test(client, release, export, image)
        run.report(judge_round(proof.verdicts))
        return proof


class AppendImageOperator(StageOperator):
    """Sends the model to the registry as one more layer of the base image. No engine is needed; the preview tests the image."""

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Run) -> Pushed:
        """The Pushed image. Skipped if the live image stays and only its golden cases are new."""
        if run.action == "cases":
            raise AirflowSkipException("the live image stays, with new golden cases")
        from slipway.image.append import append_image

        pushed = append_image(run.release, run.export)
        log.info("push: %s", pushed.reference)
        return pushed


class PushOperator(StageOperator):
    """Pushes the image, and reads its digest back from the registry.

    With a preview it runs beside the smoke test. Without one it comes after it, and pushes what passed.
    """

    ui_color = YELLOW
    keeps_s = BUILD_S

    def make(self, run: Run) -> Pushed:
        """The Pushed image."""
        from slipway.image.engine import engine
        from slipway.image.push import push_image

        release = run.release
        with engine(release) as client:
            tested = run.result_of(task_ids.SMOKE_TEST) is not None
            pushed = push_image(client, release, run.export, run.proof.image if tested else run.image)
        log.info("push: %s", pushed.reference)
        return pushed

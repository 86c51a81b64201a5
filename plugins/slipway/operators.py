"""The refresh DAG's tasks as operators: each takes facts of earlier tasks, leaves one of its own, and decides nothing.

Constructors only assign. What must not be tried again becomes AirflowFailException, in one line.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.errors import SlipwayError
from slipway.facts import from_dict, to_dict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

Fact = dict[str, Any]

log = logging.getLogger(__name__)


@contextmanager
def one_line_failures() -> Iterator[None]:
    """A SlipwayError that will not go away by itself fails the task at once, without a retry and with its one line."""
    try:
        yield
    except SlipwayError as error:
        if error.worth_retrying:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


class ResolveOperator(BaseOperator):
    """Pins everything: leaves the Release."""

    template_fields: Sequence[str] = ()
    ui_color = "#e8f0fe"

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def execute(self, context: Context) -> Fact:
        """The Release as a dict."""
        from slipway.params import read_params
        from slipway.resolve import read_settings, resolve

        with one_line_failures():
            params = read_params(dict(context["params"]))
            release = resolve(Path(self.model_file), params, read_settings(), run_id=context["run_id"])
        log.info("resolve: %s at %s on %s", release.model, release.source.revision, release.base_reference)
        return to_dict(release)


class ExportOperator(BaseOperator):
    """Runs the exporter in its own interpreter: leaves the Export."""

    template_fields: Sequence[str] = ("release", "exporter_python")
    ui_color = "#e6f4ea"

    def __init__(self, *, release: Any, exporter_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        self.exporter_python = exporter_python
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> Fact:  # noqa: ARG002 - Airflow's signature
        """The Export as a dict."""
        from slipway.export import run_export
        from slipway.release import Release

        with one_line_failures():
            release = from_dict(Release, self.release)
            return to_dict(run_export(release, python=self.exporter_python, started=self._started))

    def on_kill(self) -> None:
        """The exporter ends with its task."""
        from slipway.export import end_exporter

        if self._process is not None:
            end_exporter(self._process)

    def _started(self, process: subprocess.Popen[str]) -> None:
        self._process = process


class BuildImageOperator(BaseOperator):
    """Commits the model into the serving image: leaves the Image."""

    template_fields: Sequence[str] = ("release", "export")
    ui_color = "#fef7e0"

    def __init__(self, *, release: Any, export: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        self.export = export

    def execute(self, context: Context) -> Fact:  # noqa: ARG002 - Airflow's signature
        """The Image as a dict."""
        from slipway.export import Export
        from slipway.image import engine, ensure_image
        from slipway.release import Release

        with one_line_failures():
            release, export = from_dict(Release, self.release), from_dict(Export, self.export)
            with engine(release) as client:
                image = ensure_image(client, release, export)
        log.info("image: %s is %s", image.reference, image.image_id)
        return to_dict(image)


class SmokeTestOperator(BaseOperator):
    """Runs the image on the worker's engine and asks it everything: leaves the Proof."""

    template_fields: Sequence[str] = ("release", "export", "image")
    ui_color = "#fef7e0"

    def __init__(self, *, release: Any, export: Any, image: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        self.export = export
        self.image = image

    def execute(self, context: Context) -> Fact:  # noqa: ARG002 - Airflow's signature
        """The Proof as a dict. An engine that lacks the image builds it again."""
        from slipway.export import Export
        from slipway.image import Image, engine, ensure_image, has_image, smoke_test
        from slipway.release import Release

        with one_line_failures():
            release, export = from_dict(Release, self.release), from_dict(Export, self.export)
            image = from_dict(Image, self.image)
            with engine(release) as client:
                if not has_image(client, image):
                    image = ensure_image(client, release, export)
                return to_dict(smoke_test(client, release, export, image))


class PushOperator(BaseOperator):
    """Pushes the image that passed the smoke test: leaves what the registry holds."""

    template_fields: Sequence[str] = ("release", "export", "proof")
    ui_color = "#fef7e0"

    def __init__(self, *, release: Any, export: Any, proof: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        self.export = export
        self.proof = proof

    def execute(self, context: Context) -> Fact:  # noqa: ARG002 - Airflow's signature
        """The Pushed image as a dict."""
        from slipway.export import Export
        from slipway.image import Proof, engine, push_image
        from slipway.release import Release

        with one_line_failures():
            release, export = from_dict(Release, self.release), from_dict(Export, self.export)
            with engine(release) as client:
                pushed = push_image(client, release, export, from_dict(Proof, self.proof))
        log.info("push: %s", pushed.reference)
        return to_dict(pushed)


class ApplyOperator(BaseOperator):
    """Renders and applies the manifests; opens the record first: leaves what was Applied."""

    template_fields: Sequence[str] = ("release", "export", "pushed")
    ui_color = "#fce8e6"

    def __init__(self, *, release: Any, export: Any, pushed: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release
        self.export = export
        self.pushed = pushed

    def execute(self, context: Context) -> Fact:  # noqa: ARG002 - Airflow's signature
        """The Applied objects as a dict."""
        from slipway.export import Export
        from slipway.image import Pushed
        from slipway.live import make_live
        from slipway.release import Release

        with one_line_failures():
            release, export = from_dict(Release, self.release), from_dict(Export, self.export)
            applied = make_live(release, export, from_dict(Pushed, self.pushed))
        log.info("apply: release %s, generation %d", applied.release_id, applied.generation)
        return to_dict(applied)


class AnnounceOperator(BaseOperator):
    """Updates the release's Asset; runs only after the gate, and is the leaf that gives a run its colour."""

    template_fields: Sequence[str] = ("applied", "address")
    ui_color = "#e6f4ea"

    def __init__(self, *, applied: Any, address: Any, announces: Asset, **kwargs: Any) -> None:
        super().__init__(outlets=[announces], **kwargs)
        self.applied = applied
        self.address = address
        self.announces = announces

    def execute(self, context: Context) -> Fact:
        """What was announced."""
        said = {
            "release": self.applied["release_id"],
            "image": self.applied["reference"],
            "version": self.applied["version"],
            "address": self.address,
        }
        context["outlet_events"][self.announces].extra = said
        log.info("announce: %s", said)
        return said


class RecordOperator(BaseOperator):
    """Closes the run's record, pass or fail, as a teardown that cannot change the run's colour."""

    template_fields: Sequence[str] = ()
    ui_color = "#f1f3f4"

    def __init__(self, *, reads: dict[str, str], proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)
        self.reads = reads
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where the run failed before there was a Release to record."""
        from slipway.record import close_run
        from slipway.release import Release

        ti = context["ti"]
        said = {name: ti.xcom_pull(task_ids=task_id) for name, task_id in self.reads.items()}
        if said["release"] is None:
            log.info("record: resolve left no release, so there is nothing to record; its log says why")
            return None
        tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[context["run_id"]]).get(context["run_id"], {})
        states = {task: str(state) for task, state in tasks.items() if task != ti.task_id}
        uri = close_run(
            from_dict(Release, said["release"]), said, states, proven=states.get(self.proof_task_id) == "success"
        )
        log.info("record: %s", uri)
        return uri

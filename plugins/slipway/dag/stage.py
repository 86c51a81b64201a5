"""What all tasks share: an operator that makes one fact, and the translation of errors for Airflow.

Each task takes facts of earlier tasks and leaves one of its own. It reads them by task id, not as arguments: so the graph
in the UI shows the order of the tasks and not their wiring. Constructors only assign.
"""

from __future__ import annotations

import inspect
import logging
import subprocess
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TaskInstanceState
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag.run import CLEARING, Run
from slipway.dag.run_lease import acquire_run_lease, renew_held_run_lease
from slipway.errors import SlipwayError
from slipway.facts import JsonObject, to_dict
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

GREY, BLUE, GREEN, YELLOW, RED = "#f1f3f4", "#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6"  # colours of tasks in the UI

log = logging.getLogger(__name__)


@contextmanager
def reported_failures(run: Run, *, again: bool = False) -> Iterator[None]:
    """Report an error of Slipway's for the record, in the words of the log's last line, and translate it for Airflow.

    An error that cannot be retried becomes AirflowFailException, unless the task retries every error (`again`). An error that
    blames the release marks it in the record at once.
    """
    try:
        yield
    except SlipwayError as error:
        reason = f"{type(error).__name__}: {error}"
        measured = {} if error.measured is None else {"measured": error.measured}
        run.report(Verdict.failed(reason), bad=error.blames_release, **measured)
        if error.blames_release:
            _mark_bad(run, reason)
        if again or error.worth_retrying:
            raise
        raise AirflowFailException(reason) from error


def _mark_bad(run: Run, reason: str) -> None:
    """Mark the release as bad in the record now: the run may be killed before its `record` task writes the same."""
    from slipway.records.record import mark_record_bad

    try:
        mark_record_bad(run.release, task=run.context["ti"].task_id, reason=reason)
    except SlipwayError as error:
        log.warning("record: the release could not be marked as bad yet: %s", error)


def skip_if_run_only_plans(run: Run) -> None:
    """Skip a task that writes if the run only plans, even if `resolve` or `plan` failed or a person cleared the task."""
    if run.only_plans:
        raise AirflowSkipException("this run only plans; nothing is written")


def say_what(task: BaseOperator, context: Context) -> None:
    """Log what a task does, and how long it took when it last succeeded. If Airflow cannot say how long, only what."""
    doing = inspect.cleandoc(type(task).__doc__ or "").splitlines()[0].rstrip(".:")
    try:
        before = context["ti"].get_previous_ti(state=TaskInstanceState.SUCCESS)
        took = f"; the last time it took {before.duration:.0f} s" if before and before.duration is not None else ""
    except Exception as error:  # only a hint is lost
        log.debug("how long the task took the last time: %s", error)
        took = ""
    log.info("%s: %s%s", task.task_display_name, doing, took)


class StageOperator(BaseOperator):
    """A task that makes one fact of others."""

    only_reads = False  # whether the task also runs if the run only plans
    writes_s: int | None = None  # how long it may write to the target: it acquires or renews the Lease for as long
    keeps_s: int | None = None  # how long it may take without writing there: it renews a Lease that the run holds

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        run = Run(context)
        if not self.only_reads:
            skip_if_run_only_plans(run)
        say_what(self, context)
        with reported_failures(run):
            if self.writes_s is not None:
                acquire_run_lease(run, self.writes_s)
            if self.keeps_s is not None:
                renew_held_run_lease(run, self.keeps_s)
            fact = to_dict(self.make(run))
            run.leave(CLEARING, run.clearing)
            return fact

    @abstractmethod
    def make(self, run: Run) -> Any:
        """The fact."""


class ProgramOperator(StageOperator):
    """A stage that runs a program beside Airflow, which ends with its task."""

    _process: subprocess.Popen[str] | None = None

    def on_kill(self) -> None:
        """End the program."""
        from slipway.programs import end_program

        if self._process is not None:
            end_program(self._process)

    def _started(self, process: subprocess.Popen[str]) -> None:
        self._process = process

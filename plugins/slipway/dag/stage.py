"""The refresh DAG's tasks as operators: each takes facts of earlier tasks, leaves one of its own, and decides nothing.

Facts are pulled by the names of tasks, not passed as arguments: so the graph in the UI is the story and not its wiring.
Constructors only assign. What must not be tried again becomes AirflowFailException, in one line.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.run import Run
from slipway.dag.run_lease import (
    acquire_lease,
    renew_held_lease,
)
from slipway.errors import SlipwayError
from slipway.facts import JsonObject, to_dict
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context


GREY, BLUE, GREEN, YELLOW, RED = "#f1f3f4", "#e8f0fe", "#e6f4ea", "#fef7e0", "#fce8e6"

GRACE_S = 60  # Airflow's own limit stands behind the trigger's, which says what it was waiting for

log = logging.getLogger(__name__)


def task_states(context: Context) -> dict[str, str]:
    """The states of this run's other tasks, by their names."""
    ti, run_id = context["ti"], context["run_id"]
    tasks = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
    return {task: str(state) for task, state in tasks.items() if task != ti.task_id}


def is_proven(run: Run, states: dict[str, str], proof_task_id: str) -> bool:
    """Whether the gate has passed, or left a doubt that a person said yes to; a state alone may have been given by hand."""
    gate, asked = run.verdict_of("gate") or {}, run.verdict_of("approve") or {}
    word = asked if gate.get("outcome") == "inconclusive" else gate
    return states.get(proof_task_id) == "success" and word.get("outcome") == "pass"


def verdicts_of(run: Run, states: dict[str, str]) -> dict[str, Any]:
    """What the tasks said that ran in this try of the run: one that did not may have left a word in an earlier try."""
    ran = (task for task, state in states.items() if state in {"success", "failed"})
    return {task: said for task in ran if (said := run.verdict_of(task))}


@contextmanager
def reported_failures(run: Run) -> Iterator[None]:
    """What went wrong goes to the record in the words that the log ends with; what will not go away is not tried again."""
    try:
        yield
    except SlipwayError as error:
        said = f"{type(error).__name__}: {error}"
        run.report(Verdict.failed(said), bad=error.blames_release)
        if error.worth_retrying:
            raise
        raise AirflowFailException(said) from error


class StageOperator(BaseOperator):
    """A task that makes one fact of others."""

    writes_s: int | None = None  # how long it may write to the target: its Lease is taken, or renewed, for as long
    keeps_s: int | None = None  # how long it may take, the target untouched: the Lease is renewed where the run has it

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        run = Run(context)
        with reported_failures(run):
            if self.writes_s is not None:
                acquire_lease(run, self.writes_s)
            if self.keeps_s is not None:
                renew_held_lease(run, self.keeps_s)
            return to_dict(self.make(run))

    @abstractmethod
    def make(self, run: Run) -> Any:
        """The fact."""

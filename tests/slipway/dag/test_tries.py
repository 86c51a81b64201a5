import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.graph import ROLLBACK, WAIT
from slipway.dag.run import Run
from slipway.dag.tries import LOSABLE, count_lost_try, lost_tries, note_deferral, note_resumption, own_tries
from slipway.verdict import Verdict


@pytest.fixture
def waiting(context_of):
    """A task that waits, and the context of its first try."""
    context = context_of("wait")
    context["ti"].max_tries = LOSABLE
    return BaseOperator(task_id="wait", **WAIT), context


def lose(task, context, times):
    """Let Airflow lose some tries: each defers and is not resumed."""
    for _ in range(times):
        note_deferral(context)
        context["ti"].try_number += 1
        count_lost_try(task, context)


def evaluated(task, context):
    """What the task's policy says of an error in this try."""
    ti = context["ti"]
    return task.retry_policy.evaluate(OSError(), ti.try_number, ti.max_tries, context).action


def test_lost_tries_use_up_no_retry(waiting):
    """After 100 lost tries an error is still retried, and the record says how many were lost."""
    task, context = waiting
    lose(task, context, 100)
    assert (own_tries(context), lost_tries(context)) == (1, 100)
    assert evaluated(task, context) is RetryAction.DEFAULT
    run = Run(context)
    run.report(Verdict.passed("there"))
    assert run.verdict_of("wait")["lost_tries"] == 100


@pytest.mark.parametrize(("arguments", "most"), [(WAIT, 5), (ROLLBACK, 30)], ids=["wait", "rollback"])
def test_errors_are_retried_a_few_times(waiting, arguments, most):
    """The task has many retries, but its own errors are retried only a few times."""
    task, context = BaseOperator(task_id="wait", **arguments), waiting[1]
    context["ti"].try_number = most
    assert evaluated(task, context) is RetryAction.DEFAULT
    context["ti"].try_number = most + 1
    assert evaluated(task, context) is RetryAction.FAIL


def test_task_fails_if_its_workers_die_again_and_again(waiting):
    """A worker that dies leaves no error. One try more than allowed fails at its start, in one line."""
    task, context = waiting
    context["ti"].try_number = 6
    count_lost_try(task, context)
    context["ti"].try_number = 7
    with pytest.raises(AirflowFailException, match=r"^6 tries ended without a result\. Next: "):
        count_lost_try(task, context)


def test_cleared_task_begins_again(waiting):
    """After a clearing Airflow goes on counting tries, and adds the retries. Tries that were lost before do not count."""
    task, context = waiting
    lose(task, context, 2)
    ti = context["ti"]
    ti.max_tries, ti.try_number = 3 + LOSABLE, 4
    context["dag_run"].clear_number = 1
    count_lost_try(task, context)
    assert (own_tries(context), lost_tries(context)) == (1, 0)


def test_try_that_was_resumed_is_not_lost(waiting):
    """An error after the deferral is the task's own."""
    task, context = waiting
    note_deferral(context)
    note_resumption(context)
    context["ti"].try_number = 2
    count_lost_try(task, context)
    assert (own_tries(context), lost_tries(context)) == (2, 0)


def test_try_whose_trigger_failed_is_not_lost(waiting):
    """Airflow raises the trigger's failure in the task's process, before the task's own method: the try is one of its own."""
    task, context = waiting
    for number in range(1, 7):
        context["ti"].try_number = number
        count_lost_try(task, context)
        note_deferral(context)
        action = evaluated(task, context)
    assert (lost_tries(context), action) == (0, RetryAction.FAIL)

"""Following a run: what a person sees of it."""

import pytest

from local.errors import StandError
from local.refresh import dag_id, parse_params, plan_changes, render_log


def test_params_are_json_where_they_can_be():
    """Numbers and truth values arrive as such, texts as texts, and `--force` is one of them."""
    assert parse_params(["min_confidence=0.9", "overlay=local"], force=True) == {
        "force": True,
        "min_confidence": 0.9,
        "overlay": "local",
    }


@pytest.mark.parametrize("word", ["revision", "=x"])
def test_param_without_name_or_value_is_refused(word):
    """The message shows how one looks."""
    with pytest.raises(StandError, match="KEY=VALUE"):
        parse_params([word], force=False)


def test_dag_is_named_after_the_model():
    """As dags/refresh.py does."""
    assert dag_id("digits-vit") == "refresh_digits_vit"


def test_only_changes_are_told():
    """A state that was told before, and a task that nothing has happened to, are left out."""
    now = {"resolve": "success", "export": "running", "gate": None}
    assert plan_changes({"resolve": "success", "export": "queued"}, now) == [("export", "queued", "running")]


def test_errors_and_their_causes_out_of_a_log():
    """Of a failed task's log a person sees the errors, with each exception's own words."""
    log = [
        {"event": "::group::Log message source details"},
        {"event": "pushing", "level": "info"},
        {
            "event": "Task failed with exception",
            "level": "error",
            "error_detail": [{"exc_type": "ImagePushRefused", "exc_value": "no such host"}],
        },
    ]
    assert render_log(log) == ["Task failed with exception", "ImagePushRefused: no such host"]


def test_last_lines_if_a_log_has_no_error():
    """A task that was killed says what it did last."""
    assert render_log([{"event": f"line {number}", "level": "info"} for number in range(20)]) == [
        f"line {number}" for number in range(8, 20)
    ]

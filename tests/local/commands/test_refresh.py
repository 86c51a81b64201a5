"""Following a run: what a person sees of it."""

import json

import pytest
from airflow.sdk import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from local.commands.refresh import dag_id, explain, parse_params, plan_changes, render_log
from local.errors import StandError
from slipway.model_file import overlay_names
from slipway.params import refresh_form


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


def test_refused_param_is_one_line():
    """Of Airflow's answer a person sees the Param, the value and what is allowed, as the form's own check says it."""
    form = ParamsDict(refresh_form(None))
    with pytest.raises(ParamValidationError) as refusal:
        form["overlay"] = "nowhere"
    assert "\n" in str(refusal.value)
    said = explain("POST /dagRuns: 400", json.dumps({"detail": str(refusal.value)}))
    allowed = [None, *overlay_names()]
    assert said == f"Param overlay: 'nowhere' is not one of {allowed}. Next: mend --param overlay=…, or leave it out"


@pytest.mark.parametrize("answer", ['{"detail": "no\\nway"}', "no\nway"])
def test_refusal_is_airflows_words_in_one_line(answer):
    """Whatever else Airflow refuses is told in its words, JSON or not."""
    assert explain("GET /dags: 403", answer) == "Airflow: GET /dags: 403 no way"


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

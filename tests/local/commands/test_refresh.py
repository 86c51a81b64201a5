"""What `refresh` prints while it follows a run."""

import json

import pytest
from airflow.sdk import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from local.commands.refresh import (
    dag_id,
    explain,
    median_durations,
    parse_params,
    plan_changes,
    render_log,
    require_server,
)
from local.errors import StandError
from slipway.dag.forms import refresh_form
from slipway.model.served import overlay_names
from slipway.paths import INCLUDE


def test_params_are_read_as_json_if_they_are_json():
    """Numbers and booleans keep their type, other values are strings, and `--force` is one of the params."""
    assert parse_params(["min_confidence=0.9", "overlay=local"], force=True) == {
        "force": True,
        "min_confidence": 0.9,
        "overlay": "local",
    }


@pytest.mark.parametrize(("model", "is_prepared"), [("digits-onnx", False), ("digits-vit", True)])
def test_model_of_onnx_runtime_needs_a_stand_that_has_it(model, is_prepared):
    """Otherwise its run would fail minutes later, where the base image or the exporter is missing."""
    text = (INCLUDE / "served" / f"{model}.yaml").read_text()
    require_server(model, text, {"onnx_serving_image": "127.0.0.1:28500/slipway/onnx-server:1"})
    if is_prepared:
        require_server(model, f"{text}# serving: {{runtime: onnxruntime}}\n", {"onnx_serving_image": None})
        return
    with pytest.raises(StandError, match=r"^model digits-onnx: .*Next: python3 -m local up --onnx$"):
        require_server(model, text, {"onnx_serving_image": None})


@pytest.mark.parametrize("word", ["revision", "=x"])
def test_param_without_name_or_value_is_refused(word):
    """The message shows the right form."""
    with pytest.raises(StandError, match="KEY=VALUE"):
        parse_params([word], force=False)


def test_refused_param_is_reported_in_one_line():
    """The line has the Param, the value and what is allowed, in the words of the form's own check."""
    form = ParamsDict(refresh_form(None))
    with pytest.raises(ParamValidationError) as refusal:
        form["overlay"] = "nowhere"
    assert "\n" in str(refusal.value)
    said = explain("POST /dagRuns: 400", json.dumps({"detail": str(refusal.value)}))
    allowed = [None, *overlay_names()]
    assert said == f"Param overlay: 'nowhere' is not one of {allowed}. Next: correct --param overlay=…, or omit it"


@pytest.mark.parametrize("answer", ['{"detail": "no\\nway"}', "no\nway"])
def test_refusal_is_airflows_message_in_one_line(answer):
    """Any other refusal is reported in Airflow's words, whether JSON or not."""
    assert explain("GET /dags: 403", answer) == "Airflow: GET /dags: 403 no way"


def test_dag_is_named_after_the_model():
    """The id is the one that the DAGs have."""
    assert dag_id("digits-vit") == "refresh_digits_vit"


def test_only_changes_of_state_are_printed():
    """A task with the state of the last poll is left out, and so is a task without a state."""
    now = {"resolve": "success", "export": "running", "gate": None}
    assert plan_changes({"resolve": "success", "export": "queued"}, now) == [("export", "queued", "running")]


def test_usual_times_are_medians_of_the_last_successes():
    """Newest first; a task that has not ended has no duration, and older ones do not count."""
    durations = {"export": [9, 20, 21, 22, 50, 1000], "gate": [None, 4]}
    tasks = [{"task_id": name, "map_index": -1, "duration": one} for name, all_ in durations.items() for one in all_]
    assert median_durations(tasks) == {"export": 21, "gate": 4}


def test_log_is_reduced_to_errors_and_their_causes():
    """Of a failed task's log only the errors are shown, with the message of each exception."""
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
    """The log of a task that was killed shows what it did last."""
    assert render_log([{"event": f"line {number}", "level": "info"} for number in range(20)]) == [
        f"line {number}" for number in range(8, 20)
    ]

import json

import pytest
from airflow.sdk import ParamsDict

from slipway.dag.forms import (
    FROM_FILE,
    load_test_form,
    read_load_test_form,
    read_refresh_form,
    read_rollback_form,
    refresh_form,
    rollback_form,
)
from slipway.errors import InputRefused
from slipway.load_plan import LoadPlan
from slipway.model.served import overlay_names, parse_model_file
from slipway.steps.settings import LoadParams, RefreshParams

HUB = parse_model_file(
    {
        "source": {"hub": "google/vit"},
        "gate": {"golden": [{"name": "a", "image": "a.png", "label": "a"}]},
        "target": {"overlay": "local"},
    },
    where="m.yaml",
)
FOLDER = HUB.model_copy(
    update={"source": parse_model_file({**HUB.model_dump(), "source": {"folder": "x"}}, where="m").source}
)
VALID = [
    ({}, RefreshParams()),
    ({"revision": None, "overlay": None, "min_confidence": None, "force": False}, RefreshParams()),
    ({"revision": "v2", "force": True}, RefreshParams(revision="v2", force=True)),
    ({"overlay": "local"}, RefreshParams(overlay="local")),
    ({"min_confidence": 0}, RefreshParams(min_confidence=0)),
    ({"min_confidence": 1}, RefreshParams(min_confidence=1)),
    ({"min_confidence": 0.85}, RefreshParams(min_confidence=0.85)),
]


@pytest.mark.parametrize(("given", "params"), VALID)
def test_params_are_read_from_the_form(given, params):
    """An empty field means the model file's value."""
    assert params == read_refresh_form(given)


INVALID = [
    ("revision", ""),
    ("revision", "  "),
    ("revision", 3),
    ("overlay", "nowhere"),
    ("overlay", "../base"),
    ("overlay", 3),
    ("min_confidence", "0.8"),
    ("min_confidence", True),
    ("min_confidence", 1.01),
    ("min_confidence", -1),
    ("min_confidence", float("nan")),
    ("force", "yes"),
    ("force", 1),
    ("force", None),
    ("plan_only", "perhaps"),
    ("plan_only", 0),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_refused_in_one_line_if_a_param_is_invalid(name, value):
    """The line names the Param, its value and what to do next."""
    with pytest.raises(InputRefused, match=rf"^Param {name}: .*Next: ") as refusal:
        read_refresh_form({name: value})
    assert repr(value) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("read", "known"), [(read_refresh_form, "force"), (read_rollback_form, "release")])
def test_refused_if_the_param_is_unknown(read, known):
    """Airflow silently accepts a misspelt Param; a run refuses it and names the known ones."""
    with pytest.raises(InputRefused, match=rf"^Param overlai: there is no such Param\. Next: use one of .*\b{known}\b"):
        read({"overlai": "local"})


@pytest.mark.parametrize("value", ["", 3])
def test_refused_if_the_release_is_not_text(value):
    """A rollback's Param is the id of a release, or empty."""
    assert read_rollback_form({"release": None}) is None
    with pytest.raises(InputRefused, match=rf"^Param release: {value!r} is not text\. Next: "):
        read_rollback_form({"release": value})


@pytest.mark.parametrize("file", [HUB, FOLDER, None], ids=["hub", "folder", "refused file"])
def test_all_defaults_are_valid(file):
    """A DAG with a schedule needs valid defaults; they mean the model file's values."""
    form = ParamsDict(refresh_form(file))
    form.validate()
    assert RefreshParams() == read_refresh_form(form.dump())


def test_form_shows_what_empty_means():
    """The form shows the model file's values."""
    form = refresh_form(HUB)
    assert "(main)" in form["revision"].description
    assert "(local)" in form["overlay"].description
    assert "(its source has none)" in refresh_form(FOLDER)["revision"].description


def test_form_offers_every_shipped_overlay():
    """It offers no overlay too."""
    assert [None, *overlay_names()] == refresh_form(HUB)["overlay"].schema["enum"]


def test_empty_overlay_is_shown_as_text():
    """The page shows a text for `null`: it looks the text up under that key, which JSON keeps."""
    shown = json.loads(json.dumps(refresh_form(HUB)["overlay"].schema))["values_display"]
    assert shown == {"null": FROM_FILE}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overlay", "nowhere"),
        ("min_confidence", 2),
        ("min_confidence", "x"),
        ("force", "yes"),
        ("plan_only", 1),
        ("revision", ""),
    ],
)
def test_form_refuses_the_same_values_as_read_params(name, value):
    """Airflow's own check of the form refuses an invalid value before a run starts."""
    form = ParamsDict(refresh_form(HUB))
    with pytest.raises(Exception, match="Invalid input for param"):
        form[name] = value


@pytest.mark.parametrize("value", ["", "0123456789AB", "0123", 3])
def test_rollback_form_refuses_an_invalid_release(value):
    """The id of a release is twelve hex digits."""
    form = ParamsDict(rollback_form())
    with pytest.raises(Exception, match="Invalid input for param release"):
        form["release"] = value


def test_a_load_tests_form_is_read():
    """Empty fields mean the model file's values, and the live release."""
    assert read_load_test_form({"rates_per_s": None, "rest": None}) == LoadParams()
    given = {"rates_per_s": [5], "step_s": None, "rest": "http://10.0.0.1:8501", "grpc": "[::1]:8500"}
    read = LoadParams(changes={"rates_per_s": [5]}, rest="http://10.0.0.1:8501", grpc="[::1]:8500")
    assert (read_load_test_form(given), read.elsewhere, LoadParams().elsewhere) == (read, True, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rest", "10.0.0.1:8501"),
        ("rest", "http://user:password@a:8501"),
        ("rest", "http://a:8501/v1?x=y"),
        ("rest", "file:///etc:1"),
        ("rest", "http://a"),
        ("rest", "http://a:1\n"),
        ("grpc", "http://a:8500"),
        ("grpc", "a"),
    ],
)
def test_an_address_is_host_and_port(name, value):
    """The form and the task refuse the same values; the message does not repeat a login."""
    form = ParamsDict(load_test_form(LoadPlan(), 8))
    with pytest.raises(InputRefused, match=rf"^Param {name}: is not of the form ") as refused:
        read_load_test_form({name: value})
    assert "password" not in str(refused.value)
    if not value.endswith("\n"):
        with pytest.raises(Exception, match=f"Invalid input for param {name}"):
            form[name] = value

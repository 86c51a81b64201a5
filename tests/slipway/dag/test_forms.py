import json

import pytest
from airflow.sdk import ParamsDict

from slipway.dag.forms import FROM_FILE, read_params, read_release, refresh_form, rollback_form
from slipway.errors import InputRefused
from slipway.model.served import overlay_names, parse_model_file
from slipway.steps.settings import RefreshParams

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
ASKED = [
    ({}, RefreshParams()),
    ({"revision": None, "overlay": None, "min_confidence": None, "force": False}, RefreshParams()),
    ({"revision": "v2", "force": True}, RefreshParams(revision="v2", force=True)),
    ({"overlay": "local"}, RefreshParams(overlay="local")),
    ({"min_confidence": 0}, RefreshParams(min_confidence=0)),
    ({"min_confidence": 1}, RefreshParams(min_confidence=1)),
    ({"min_confidence": 0.85}, RefreshParams(min_confidence=0.85)),
]


@pytest.mark.parametrize(("given", "params"), ASKED)
def test_params_of_a_run(given, params):
    """What the form says is read once, empty meaning what the model file says."""
    assert params == read_params(given)


REFUSED = [
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


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_refused_in_one_line_naming_the_param(name, value):
    """A Param that cannot be meant is refused with its name, its value and what next."""
    with pytest.raises(InputRefused, match=rf"^Param {name}: .*Next: ") as refusal:
        read_params({name: value})
    assert repr(value) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("read", "known"), [(read_params, "force"), (read_release, "release")])
def test_refused_if_there_is_no_such_param(read, known):
    """Airflow takes a misspelt Param in silence; a run does not, and names those there are."""
    with pytest.raises(InputRefused, match=rf"^Param overlai: there is no such Param\. Next: use one of .*\b{known}\b"):
        read({"overlai": "local"})


@pytest.mark.parametrize("value", ["", 3])
def test_refused_if_the_release_is_no_text(value):
    """A rollback's Param is a release's id, or empty."""
    assert read_release({"release": None}) is None
    with pytest.raises(InputRefused, match=rf"^Param release: {value!r} is not text\. Next: "):
        read_release({"release": value})


@pytest.mark.parametrize("file", [HUB, FOLDER, None], ids=["hub", "folder", "refused file"])
def test_every_default_is_valid(file):
    """A DAG with a schedule needs Params that are valid as they are, and they mean the model file."""
    form = ParamsDict(refresh_form(file))
    form.validate()
    assert RefreshParams() == read_params(form.dump())


def test_form_tells_what_empty_means():
    """A person sees in the form what the model file says."""
    form = refresh_form(HUB)
    assert "(main)" in form["revision"].description
    assert "(local)" in form["overlay"].description
    assert "(its source has none)" in refresh_form(FOLDER)["revision"].description


def test_overlays_to_choose_from_are_those_that_ship():
    """The form offers every overlay, and none."""
    assert [None, *overlay_names()] == refresh_form(HUB)["overlay"].schema["enum"]


def test_empty_overlay_is_shown_in_words():
    """The form's page shows no `null`; it looks a value's words up by that key, which the way through JSON keeps."""
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
def test_form_refuses_what_read_params_would(name, value):
    """Airflow's own check of the form stops what cannot be meant before a run starts."""
    form = ParamsDict(refresh_form(HUB))
    with pytest.raises(Exception, match="Invalid input for param"):
        form[name] = value


@pytest.mark.parametrize("value", ["", "0123456789AB", "0123", 3])
def test_rollbacks_form_refuses_what_is_no_release(value):
    """A release's id is twelve hex digits."""
    form = ParamsDict(rollback_form())
    with pytest.raises(Exception, match="Invalid input for param release"):
        form["release"] = value

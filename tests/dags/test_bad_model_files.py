"""A bad model file affects only its own DAG, whatever its content and name, in a fleet of a hundred too."""

import os
from itertools import pairwise

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization

from slipway.dags import make_dags
from slipway.model.served import read_model_file
from slipway.names import dag_id, rollback_dag_id
from slipway.steps.resolve import readable_files

GOOD = 'source: {folder: a}\nschedule: "0 3 * * *"\ngate: {golden: [{name: three, image: three.png, label: "3"}]}\n'
LEVELS = [f"x{level}" for level in range(12)]
DOUBLING = "".join(f"{above}: &{above} [{', '.join([f'*{below}'] * 9)}]\n" for below, above in pairwise(LEVELS))

BAD = {
    "an invalid boolean": "description: !!bool maybe\n",
    "an invalid time": "description: !!timestamp foo\n",
    "an empty number": "description: !!int ''\n",
    "a number of 5000 digits": f"gate: {{passes: 0x{'f' * 5000}}}\n",
    "deep nesting": f"description: {'[' * 2000}\n",
    "deep block nesting": "".join(f"{' ' * depth}a:\n" for depth in range(300)),
    "aliases that double": f"x0: &x0 [a, a]\n{DOUBLING}",
    "an alias of itself": "description: &a [*a]\n",
    "a schedule that never comes": GOOD.replace("0 3 * *", "0 3 30 2"),
    "a NUL": GOOD + 'description: "\\0"\n',
    "a lone surrogate": GOOD + 'description: "\\ud800"\n',
    "a lone surrogate in a name": GOOD + '"\\ud800": 1\n',
    "a large file": f"{GOOD}# {'x' * 100_000}\n",
    "ten thousand unknown fields": "".join(f"a{number}: 1\n" for number in range(5000)),
}
NAMES = ["a" * 245, "größe", "a b", "A", "B", "a\n", os.fsdecode(b"\xff"), "{model}", "-", "a_b"]


@pytest.fixture
def parse(users_folder):
    """The DAGs of these model files, by id, each as Airflow stores it."""

    def parse(*files):
        for stem, text in files:
            (users_folder / "served" / f"{stem}.yaml").write_text(text)
        found = {dag.dag_id: dag for dag in make_dags()}
        for dag in found.values():
            dag.validate()
            assert is_storable(DagSerialization.to_dict(dag))
        return found

    return parse


def is_storable(value):
    """Whether PostgreSQL takes every text in it: no NUL and no lone surrogate."""
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_storable, value))
    return not isinstance(value, str) or (value.encode(errors="replace").decode() == value and "\0" not in value)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_content_affects_only_its_own_dag(parse, text):
    """The bad file's DAG says that it is refused, and has no schedule; the good file's DAG is there."""
    dags = parse(("bad", text), ("good", GOOD))
    refused = dags["refresh_bad"]
    assert refused.description.startswith("refused: ")
    assert "bad.yaml: " in refused.description
    assert "Next: " in refused.description
    assert len(refused.description) < 2000
    assert not refused.timetable.can_be_scheduled
    assert dags["refresh_good"].timetable.can_be_scheduled
    assert "rollback_good" in dags


def test_bad_names_affect_only_their_own_dags(parse):
    """Each misnamed file has a DAG of its own that is refused, even if the names differ in characters that an id cannot have."""
    dags = parse(*((name, GOOD) for name in NAMES), ("good", GOOD))
    assert set(dags) == {make(name) for make in (dag_id, rollback_dag_id) for name in [*NAMES, "good"]}
    assert len(dags) == 2 * (len(NAMES) + 1)
    for name in NAMES:
        assert "the file's name is the model's name" in dags[dag_id(name)].description
    assert dags["refresh_good"].timetable.can_be_scheduled


FLEET = 100
ONE_BAD = "model-042"
SPOILED = {
    "not YAML": (lambda file: file.write_text(f"{GOOD}gate: [\n"), "not YAML: "),
    "an unknown field": (lambda file: file.write_text(f"{GOOD}colour: red\n"), "colour: "),
    "not UTF-8": (lambda file: file.write_bytes(GOOD.encode() + b"# caf\xe9\n"), "cannot be read: "),
    "a link to nothing": (lambda file: (file.unlink(), file.symlink_to("gone.yaml")), "no such model file"),
}


@pytest.fixture
def fleet(users_folder, monkeypatch):
    """A hundred good model files, by name, each with a Deployment of its own."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", f"file://{users_folder}/store")
    files = {f"model-{number:03}": users_folder / "served" / f"model-{number:03}.yaml" for number in range(FLEET)}
    for name, file in files.items():
        file.write_text(f"{GOOD}target: {{deployment: tfs-{name}}}\n")
    return files


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_a_fleet_with_one_bad_file_loses_one_dag(fleet, context_of, spoil, said):
    """The other 99 models keep their schedules; the bad one's DAG has none, and its first task says what is wrong."""
    spoil(fleet[ONE_BAD])
    dags = {dag.dag_id: dag for dag in make_dags()}
    assert set(dags) == {make(name) for make in (dag_id, rollback_dag_id) for name in fleet}
    assert [name for name in fleet if not dags[dag_id(name)].timetable.can_be_scheduled] == [ONE_BAD]
    with pytest.raises(AirflowFailException, match=f"{ONE_BAD}.yaml: {said}.*Next: "):
        dags[dag_id(ONE_BAD)].get_task("resolve").execute(context_of("resolve"))


def test_a_good_models_run_passes_over_the_bad_file(fleet):
    """What compares the model files of a fleet, such as the check for shared objects, leaves out the bad one alone."""
    fleet[ONE_BAD].write_text("nonsense")
    good = fleet["model-000"]
    assert set(readable_files(good, read_model_file(good))) == set(fleet) - {ONE_BAD}

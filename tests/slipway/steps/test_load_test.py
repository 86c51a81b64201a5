"""A load test of the live release: its target, its plan, and what is kept."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from grpc_serving import DESCRIPTORS, request_of

from slipway.errors import InputRefused, LoadTestFailed, LoadTestUnfinished, ReleaseUnsettled
from slipway.facts import LoadTarget, to_dict
from slipway.load_plan import LoadPlan
from slipway.model.load_settings import LoadSettings
from slipway.names import load_folder
from slipway.records.record import write_record
from slipway.serving import load_program
from slipway.steps import load_test
from slipway.steps.load_test import choose_load_target, plan_of, run_test
from slipway.steps.settings import LoadParams, Settings

SERVICE = {
    "metadata": {"name": "tfs-server"},
    "spec": {"ports": [{"name": "tf-serving-grpc", "port": 8500}, {"name": "tf-serving-restapi", "port": 8501}]},
    "status": {"loadBalancer": {"ingress": [{"ip": "127.20.1.1"}]}},
}
PROGRAM = """
import json, sys
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
request = json.loads(Path(words["--request"]).read_text())
out = Path(words["--out"])
out.mkdir()
step = {"kind": "rate", "asked_per_s": 2, "users": 4, "reached_per_s": 2, "p95_ms": 10, "errors": {}}
before = json.loads(Path(words["--before"]).read_text()) if "--before" in words else None
figures = {"steps": [step], "holds_up_to_per_s": 2, "objective": request["objective"], "request": request, "before": before}
figures["workers"] = words.get("--workers")
(out / "load.json").write_text(json.dumps(figures))
(out / "load.png").write_text("picture")
print("step 1 of 1")
"""


@pytest.fixture
def served(users_folder, store, connected, http_server, installation):
    """The model digits-vit with `load_test`, whose Service has an address; `served(**changes)` changes the settings."""
    folder = users_folder / "served"
    connected(http_server((200, json.dumps(SERVICE))))

    def write(**changes):
        golden = [{"name": "three", "image": "three.png", "label": "3"}]
        file = {
            "source": {"folder": "checkpoint"},
            "gate": {"golden": golden},
            "target": {"namespace": "shop"},
            **changes,
        }
        (folder / "digits-vit.yaml").write_text(yaml.safe_dump(file))
        return Settings(store=store.uri, registry=None)

    return write


def target_of(settings, **changes):
    """The target of a load test."""
    return choose_load_target("digits-vit", settings, LoadParams(**changes), run_id="test")


def test_the_live_release_is_tested_at_its_address(served, store, record_of):
    """REST and gRPC at the Service's address now, with the plan of the model file."""
    write_record(store, record_of("good"))
    target = target_of(served(load_test={"rates_per_s": [3], "p95_ms": 50}))
    assert (target.rest, target.grpc, target.version) == ("http://127.20.1.1:8501", "127.20.1.1:8500", 7)
    assert (target.plan.rates_per_s, target.plan.p95_ms, target.before) == ((3,), 50, None)


@pytest.mark.parametrize(
    ("records", "file", "said"),
    [
        ([], {"load_test": {}}, "no release is live and proven"),
        ([("bad", "failed")], {"load_test": {}}, "no release is live and proven"),
        ([("good", "live")], {}, "has no load_test. Next: add it"),
    ],
    ids=["nothing", "only a failed one", "not in the model file"],
)
def test_refused_if_nothing_proven_serves(served, store, record_of, records, file, said):  # noqa: PLR0917
    """In one line."""
    for minutes, (run_id, outcome) in enumerate(records):
        write_record(store, record_of(run_id, outcome, minutes))
    with pytest.raises(InputRefused, match=said):
        target_of(served(**file))


def test_unsettled_while_a_run_has_not_recorded_its_end(served, store, record_of):
    """The Asset's event comes before the record: the task is tried again, so that it does not load the release before."""
    write_record(store, record_of("good"))
    write_record(store, record_of("next", "open", 1))
    with pytest.raises(ReleaseUnsettled, match="run next has applied a release and not recorded its end") as raised:
        target_of(served(load_test={}))
    assert raised.value.worth_retrying


def test_the_form_changes_the_plan():
    """Within what a model file may say."""
    assert plan_of(LoadSettings(), {"rates_per_s": [5], "step_s": 10}) == LoadPlan(rates_per_s=(5,), step_s=10)
    with pytest.raises(InputRefused, match=r"^Param rates_per_s: .*rising order\. Next: "):
        plan_of(LoadSettings(), {"rates_per_s": [5, 1]})


@pytest.mark.parametrize(
    ("file", "rates", "most"),
    [
        ({"rates_per_s": [4, 8]}, [9], 8),
        ({"rates_per_s": [8], "most_per_s": 20}, [21], 20),
        ({"rates_per_s": []}, [1], 0),
    ],
    ids=["the largest rate", "more than that", "no rate"],
)
def test_the_model_file_bounds_the_forms_rates(file, rates, most):
    """Whoever triggers the DAG cannot send the live release more than the model file's author has thought of."""
    settings = LoadSettings(**file)
    with pytest.raises(InputRefused, match=rf"^Param rates_per_s: {rates[0]}/s is more than .*, {most}/s\. Next: "):
        plan_of(settings, {"rates_per_s": rates})
    if most:
        assert plan_of(settings, {"rates_per_s": [most]}).rates_per_s == (most,)


@pytest.mark.parametrize(
    ("rates", "least", "left_out"), [([4, 8], 4, None), ([5, 6], None, 4), ([], None, 4), (None, 4, None)]
)
def test_the_model_files_least_rate_counts_if_it_is_among_the_forms(rates, least, left_out):
    """With other rates the run only measures; without any, it is judged as the model file says."""
    plan = plan_of(LoadSettings(least_per_s=4, keep_s=30), {} if rates is None else {"rates_per_s": rates})
    assert (plan.least_per_s, plan.left_out_per_s, plan.keep_s) == (least, left_out, 30)


@pytest.fixture
def target(export, store, case, tmp_path, monkeypatch):
    """The target of a load test, and a program in place of Locust that answers at once."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(load_program, "LOADER", program)
    golden = store.put_json({"cases": [asdict(case)]}, "golden.json")
    (tmp_path / "descriptors").write_bytes(b"d")
    descriptors = store.put_file(tmp_path / "descriptors", "descriptors.bin")
    return LoadTarget(
        model="digits-vit", run_id="test+1", release_id="r2", version=7, rest="http://127.0.0.1:1", grpc="127.0.0.1:2",
        export=replace(export, golden_uri=golden, descriptors_uri=descriptors), plan=LoadPlan(rates_per_s=(2,), least_per_s=2), store=store.uri,
    )  # fmt: skip


def test_the_figures_are_kept_with_the_release(target, store, caplog):
    """All files of the test; the result names their folder and says what the release bears."""
    found = run_test(target, python=sys.executable, started=lambda _: None)
    [run] = store.names(load_folder("digits-vit", "r2"))
    assert found.uri == store.uri_of(f"{load_folder('digits-vit', 'r2')}/{run}")
    assert store.names(f"loads/digits-vit/r2/{run}") == ["load.json", "load.png"]
    assert found.said == "load: the objective (no error) holds up to 2/s, with p95 10 ms"
    assert f"{found.said}; kept at" in caplog.text
    assert found.figures["request"]["questions"][0]["labels"] == ["3"]


def test_several_processes_send_the_requests(target):
    """As many as the model file says; one needs no other that leads it."""
    found = [
        run_test(
            replace(target, plan=replace(target.plan, workers=workers)), python=sys.executable, started=lambda _: None
        )
        for workers in (1, 2)
    ]
    assert [one.figures["workers"] for one in found] == [None, "2"]


def test_red_if_the_rate_does_not_hold(target, store):
    """The figures are kept all the same, and the line says where."""
    with pytest.raises(LoadTestFailed, match=r"the model file asks 4/s\. Next: look at file://.*/loads/digits-vit/r2/"):
        run_test(
            replace(target, plan=replace(target.plan, least_per_s=4)), python=sys.executable, started=lambda _: None
        )
    assert store.names(load_folder("digits-vit", "r2"))


@pytest.fixture
def tested(store, record_of):
    """Two proven releases, r1 before r2; `tested(run, began, **more)` keeps the figures of a load test of r1."""
    write_record(store, record_of("first", release_id="r1"))
    write_record(store, record_of("second", minutes=1, release_id="r2"))

    def keep(run, began, *, number=0, **more):
        figures = {"version": 6, "began": f"2026-11-{began}T00:00:00+00:00", "steps": [{"round": number}], **more}
        return store.put_json(figures, f"{load_folder('digits-vit', 'r1')}/{run}/load.json")

    return keep


def test_the_release_before_is_in_the_picture(served, tested, target):
    """The newest test of another release that was proven live."""
    uri = tested("a", 28)
    before = target_of(served(load_test={})).before
    assert before == uri
    found = run_test(replace(target, before=before), python=sys.executable, started=lambda _: None)
    assert found.figures["before"]["version"] == 6


def test_the_newest_test_is_the_one_that_began_last(served, tested):
    """Whatever the runs are called: those of a schedule come last by name."""
    tested("scheduled__2026-11-01", 1)
    newest = tested("asset_triggered__2026-11-28", 28)
    assert target_of(served(load_test={})).before == newest


def test_what_a_gate_measured_is_not_the_test_before(served, tested):
    """It is kept beside the load tests, but its rounds went through the API server, half of them to another release."""
    tested("scheduled__2026-11-29", 29, number=1)
    assert target_of(served(load_test={})).before is None
    test = tested("manual__2026-11-28", 28)
    assert target_of(served(load_test={})).before == test


def test_a_test_that_cannot_be_read_is_not_in_the_picture(served, tested, store, caplog):
    """A run that was killed while it kept its files has no figures; the log names them."""
    (Path(store.uri.removeprefix("file://")) / "loads/digits-vit/r1/killed").mkdir(parents=True)
    assert target_of(served(load_test={})).before is None
    assert "choose: not in the picture: " in caplog.text


def versions(*states):
    """TF Serving's list of a model's versions."""
    return json.dumps({"model_version_status": [{"version": one, "state": state} for one, state in states]})


def test_the_form_may_name_another_server(served, tested, http_server, store):
    """Its version is the largest one that it has ready. In the picture is the live release's own test."""
    server = http_server((200, versions(("7", "AVAILABLE"), ("12", "AVAILABLE"), ("13", "LOADING"))))
    live = store.put_json(
        {"began": "2026-11-27T00:00:00+00:00", "steps": []}, f"{load_folder('digits-vit', 'r2')}/a/load.json"
    )
    tested("before", 28)
    target = target_of(served(load_test={}), rest=server.url)
    assert (target.rest, target.grpc, target.version, target.elsewhere) == (server.url, None, 12, True)
    assert (target.release_id, target.before) == ("r2", live)
    assert [seen.path for seen in server.seen] == ["/v1/models/digits-vit"]


def test_over_grpc_alone_an_answer_names_the_version(  # noqa: PLR0917 - fixtures
    served, record_of, store, export, case, grpc_server
):
    """A golden request without a version, which the server answers with the one that it prefers."""
    server = grpc_server(("3", 0.95, 12))
    golden = store.put_json({"cases": [asdict(replace(case, grpc_request=request_of("digits-vit")))]}, "golden.json")
    descriptors = store.uri_of("descriptors.bin")
    Path(descriptors.removeprefix("file://")).write_bytes(DESCRIPTORS)
    kept = replace(export, golden_uri=golden, descriptors_uri=descriptors)
    write_record(store, record_of("good") | {"export": to_dict(kept)})
    target = target_of(served(load_test={}), grpc=server.address)
    assert (target.rest, target.grpc, target.version) == (None, server.address, 12)


@pytest.mark.parametrize("answer", [(404, "{}"), (200, "hello"), (200, versions(("7", "END")))])
def test_refused_if_the_other_server_serves_no_version(served, record_of, store, http_server, answer):
    """The line names its address and where to look."""
    write_record(store, record_of("good"))
    server = http_server(answer)
    with pytest.raises(
        InputRefused, match=rf"^Param rest: {server.url}: no version of digits-vit is AVAILABLE .*Next: "
    ):
        target_of(served(load_test={}), rest=server.url)


def test_another_servers_test_is_not_the_releases(served, tested, target):
    """Its figures are kept with the release whose questions it was asked, and are marked."""
    found = run_test(replace(target, elsewhere=True), python=sys.executable, started=lambda _: None)
    assert found.figures["request"]["elsewhere"] is True
    tested("other", 29, elsewhere=True)
    assert target_of(served(load_test={})).before is None


def test_unfinished_if_the_program_fails(target, tmp_path):
    """The program's last line is the reason; nothing is kept."""
    (tmp_path / "program.py").write_text("import sys; print('the server is gone'); sys.exit(1)")
    with pytest.raises(LoadTestUnfinished, match=r"^load test ended with status 1: the server is gone$"):
        run_test(target, python=sys.executable, started=lambda _: None)


def test_a_missing_interpreter_is_named(target):
    """The line names the Variable."""
    with pytest.raises(LoadTestUnfinished, match=r"/nowhere/python: No such file.* Next: set the Variable slipway_load_python"):  # fmt: skip
        run_test(target, python="/nowhere/python", started=lambda _: None)


def test_images_of_a_folder_are_asked_like_the_golden_cases(target, users_folder, monkeypatch):
    """Each becomes a request without a promised answer."""
    monkeypatch.setattr(load_test, "requests_with_images", lambda _, __, images: [f"grpc {image}" for image in images])
    pictures = users_folder / "served" / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"a")
    plan = replace(target.plan, images="pictures")
    found = run_test(replace(target, plan=plan), python=sys.executable, started=lambda _: None)
    [question] = found.figures["request"]["questions"]
    assert (question["name"], question["labels"], question["grpc_request"]) == ("a.png", [], "grpc YQ==")
    assert json.loads(question["rest_body"])["instances"] == ["YQ=="]


def test_images_of_the_labelled_set_are_asked(target, served, tmp_path, monkeypatch):
    """All of `gate.quality.set`, each without a promised answer: its label is what a person says, not what the model answers."""
    monkeypatch.setattr(load_test, "requests_with_images", lambda _, __, images: [f"grpc {image}" for image in images])
    for label in ("3", "8"):
        (tmp_path / "served" / "set" / label).mkdir(parents=True)
        (tmp_path / "served" / "set" / label / "a.png").write_bytes(label.encode())
    golden = [{"name": "three", "image": "three.png", "label": "3"}]
    served(gate={"golden": golden, "quality": {"set": "set", "min_top1": 0.5}})
    plan = replace(target.plan, images="labelled")
    found = run_test(replace(target, plan=plan), python=sys.executable, started=lambda _: None)
    asked = [(one["name"], one["labels"], one["grpc_request"]) for one in found.figures["request"]["questions"]]
    assert asked == [("3/a.png", [], "grpc Mw=="), ("8/a.png", [], "grpc OA==")]


def test_refused_if_there_is_no_labelled_set(target, served, store):
    """The line names both fields; nothing is sent."""
    served()
    plan = replace(target.plan, images="labelled")
    with pytest.raises(
        InputRefused, match=r"digits-vit\.yaml: load_test\.images: labelled needs gate\.quality\. Next: "
    ):
        run_test(replace(target, plan=plan), python=sys.executable, started=lambda _: None)
    assert store.names(load_folder("digits-vit", "r2")) == []


def test_the_programs_place():
    """The program ships with the package."""
    assert Path(load_program.LOADER).is_file()

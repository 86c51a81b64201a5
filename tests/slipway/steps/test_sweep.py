"""A sweep's steps: what runs next to the live release, what is asked of it, what is kept, and that nothing stays."""

import json
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
import yaml
from rendering import MARKS, by_kind

from slipway.errors import InputRefused, LoadTestUnfinished, ManifestError
from slipway.facts import SweepTarget, Turn
from slipway.kubernetes.kustomize import render_manifests
from slipway.names import sweep_run_folder
from slipway.records.history import read_records
from slipway.records.record import new_record, record_with_preview, utc_now, write_record
from slipway.serving import load_program
from slipway.steps import sweep as steps
from slipway.steps.deploy import store_manifests
from slipway.steps.settings import Settings
from slipway.steps.sweep import (
    choose_sweep,
    forget_sweep,
    labels_of_turn,
    load_variant,
    recommend,
    remove_variant,
    start_variant,
    variant_manifests,
    variant_of_turn,
)
from slipway.variants import SweepPlan, Variant

OWN, TWO = Variant(overlay="local"), Variant(overlay="local", replicas=2)
PLAN = SweepPlan(
    variants=(OWN, TWO), rate_per_s=5, closed_users=4, p95_ms=None, passes=2, rounds=2, step_s=5, settle_s=1
)
NO_PODS = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
POD = {"metadata": {"name": "tfs-server-sweep-3-x", "uid": "p"}, "spec": {"containers": []}, "status": {}}
PROGRAM = """
import json, sys
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
request = json.loads(Path(words["--request"]).read_text())
out = Path(words["--out"])
out.mkdir()
plan = request["plan"]
kinds = ["rate"] * len(plan["rates_per_s"]) + ["closed"] * len(plan["closed_users"])
for number, kind in enumerate(kinds):
    print(f"step {number + 1} of {len(kinds)}: {kind}")
steps = [{"kind": kind, "reached_per_s": 5.0, "p95_ms": 40 + at, "errors": {}} for at, kind in enumerate(kinds)]
(out / "load.json").write_text(json.dumps({"steps": steps, "request": request}))
"""

DRAW = """
import os, sys
os.mkdir(os.path.join(os.environ["HOME"], ".cache"))  # as matplotlib does
open(sys.argv[sys.argv.index("--out") + 1], "w").write("picture")
"""


@pytest.fixture
def settings(store):
    """The settings of an Airflow without Variables for overlays."""
    return Settings(store=store.uri, registry=None)


@pytest.fixture
def target(release, export, pushed, store, case):
    """What `choose` leaves of a release that was applied with the overlay `local`."""
    release = replace(release, overlay="local")
    live = render_manifests(release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id)
    kept = store_manifests(release, pushed, live)
    golden = store.put_json({"cases": [asdict(case)]}, "golden.json")
    return SweepTarget(
        release=release, export=replace(export, golden_uri=golden), pushed=pushed, manifests_uri=kept.uri, manifests_hash=kept.hash, plan=PLAN
    )  # fmt: skip


def pods_of(objects):
    """The labels of a Deployment's pods."""
    return by_kind(objects)["Deployment"]["spec"]["template"]["metadata"]["labels"]


def test_a_variant_has_names_of_its_own(target, settings):
    """A Deployment, with the pods that the autoscaler starts with, and a Service inside the cluster; nothing else."""
    objects = by_kind(variant_manifests(target, TWO, 3, settings))
    assert objects.keys() == {"Deployment", "Service", "monitoring"}
    assert {objects[kind]["metadata"]["name"] for kind in ("Deployment", "Service")} == {"tfs-server-sweep-3"}
    assert objects["monitoring"]["metadata"]["name"].startswith("tfs-server-monitoring-sweep-3-")
    assert objects["Service"]["spec"]["type"] == "ClusterIP"
    assert objects["Deployment"]["spec"]["replicas"] == 2
    assert by_kind(variant_manifests(target, OWN, 3, settings))["Deployment"]["spec"]["replicas"] == 1
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == target.pushed.reference
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/digits-vit/versions/7"


def test_nobody_elses_selector_matches_a_variants_pods(target, settings):
    """Neither one of the live release or of its preview, nor one of another turn, and the other way round."""
    objects = variant_manifests(target, OWN, 3, settings)
    own = by_kind(objects)["Service"]["spec"]["selector"]
    assert own == labels_of_turn(target.release, 3)
    assert own.items() <= pods_of(objects).items()
    live = render_manifests(target.release, reference=target.pushed.reference, version=7, release_id="abcdefabcdef")
    for others in (live, variant_manifests(target, OWN, 13, settings)):
        assert not by_kind(others)["Service"]["spec"]["selector"].items() <= pods_of(objects).items()
        assert not own.items() <= pods_of(others).items()
    preview = {"app": "tfs-server-preview", "slipway/model": "digits-vit"}
    assert not preview.items() <= pods_of(objects).items()


REFUSED = {
    "there is no such overlay": (Variant(overlay="gone"), "overlay 'gone': there is no"),
    "the graph marks no bad images": (replace(OWN, max_batch_size=8), "has --enable_batching"),
    "the overlay may not have it": (
        Variant(overlay="mine"),
        "Job.batch x-sweep-0: is not a kind that an overlay may contain",
    ),
    "the live Service would select it": (Variant(overlay="local"), "service/all selects pods by"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_variant_is_refused_as_a_release_would_be(target, settings, store, overlay, why):
    """Before anything is written."""
    variant, said = REFUSED[why]
    place = overlay(resources=["../../base", "job.yaml"])
    (place / "job.yaml").write_text("apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\n")
    if "Service" in why:
        every = {"kind": "Service", "metadata": {"name": "all"}, "spec": {"selector": {"slipway/model": "digits-vit"}}}
        kept = store_manifests(target.release, target.pushed, [every])
        target = replace(target, manifests_uri=kept.uri, manifests_hash=kept.hash)
    with pytest.raises(ManifestError, match=said):
        variant_manifests(target, variant, 0, settings)


@pytest.fixture
def started(target, settings, api_server):
    """Starts a variant at the API server: `started(number)`."""
    api_server.pods = [NO_PODS]

    def start(number, check=lambda: None):
        return start_variant(target, OWN, number, settings, check=check)

    return start


def test_a_variant_is_recorded_before_it_is_written(started, store, api_server):
    """So that the next run removes what a killed one left; no live object is written."""
    recorded = []

    def check():
        [record] = read_records(store, "digits-vit").records
        recorded.append((record["cause"], [ref["kind"] for ref in record["preview"]], list(api_server.writes)))

    previewed = started(3, check)
    assert recorded == [("sweep", ["ConfigMap", "Service", "Deployment"], [])]
    assert (previewed.release_id, previewed.generation) == ("abcdefabcdef-sweep-3", 1)
    assert api_server.writes[0].startswith("PATCH /api/v1/namespaces/shop/configmaps/tfs-server-monitoring-sweep-3-")
    assert api_server.writes[1:] == [
        "PATCH /api/v1/namespaces/shop/services/tfs-server-sweep-3",
        "PATCH /apis/apps/v1/namespaces/shop/deployments/tfs-server-sweep-3",
    ]
    assert read_records(store, "digits-vit").history.records == ()  # nothing to roll back to


def test_a_variant_is_removed_and_the_next_one_waits_for_its_pods(target, started, api_server, store, monkeypatch):
    """Pods that terminate still have their CPUs."""
    started(3)
    asked = []
    monkeypatch.setattr(steps.time, "sleep", asked.append)
    api_server.pods = [{**NO_PODS, "items": [POD]}, {**NO_PODS, "items": [POD]}, NO_PODS]
    remove_variant(target, 3)
    assert api_server.names("Deployment") == api_server.names("Service") == []
    assert len(asked) == 2
    [record] = read_records(store, "digits-vit").records
    assert record["preview"] == []


def test_what_a_killed_run_left_is_removed_first(target, started, api_server, store, release):
    """Else the record would forget an earlier turn's objects."""
    started(3)
    started(4)
    assert api_server.names("Deployment") == ["tfs-server-sweep-4"]


def test_a_sweep_leaves_no_record(target, started, store):
    """It only listed what had to be deleted. A record that still lists something stays, and so does one of another run."""
    started(3)
    forget_sweep(target.release)
    assert len(read_records(store, "digits-vit").records) == 1
    remove_variant(target, 3)
    forget_sweep(target.release)
    assert read_records(store, "digits-vit").records == ()
    write_record(store, record_with_preview(new_record(target.release, now=utc_now()), objects=()))
    forget_sweep(target.release)
    assert len(read_records(store, "digits-vit").records) == 1


@pytest.fixture
def program(monkeypatch, tmp_path):
    """A program in place of Locust, and of the one that draws."""
    load, draw = tmp_path / "program.py", tmp_path / "draw.py"
    load.write_text(PROGRAM)
    draw.write_text(DRAW)
    monkeypatch.setattr(load_program, "LOADER", load)
    monkeypatch.setattr(load_program, "SWEEP_PLOT", draw)


def test_a_variant_is_loaded_through_the_api_server(target, program, api_server, store):
    """At the rate, then in a closed loop, with the golden cases; the figures are kept with the release, in a folder of the turn."""
    turn = load_variant(target, OWN, 3, python=sys.executable, started=lambda _: None)
    folder = f"{sweep_run_folder('digits-vit', 'abcdefabcdef', target.release.run_id)}/3"
    assert (turn.uri, store.names(folder)) == (store.uri_of(folder), ["load.json"])
    request = store.read_json(f"{folder}/load.json")["request"]
    assert request["target"]["rest"].startswith("http://127.0.0.1:")
    assert (request["target"]["version"], request["questions"][0]["labels"]) == (7, ["3"])
    assert request["plan"] == {"rates_per_s": [5, 5], "closed_users": [4, 4], "step_s": 5, "settle_s": 1, "rounds": 0}
    assert (turn.variant, turn.p95_ms, turn.most_per_s) == ("local", (40, 41), (5.0, 5.0))
    assert turn.why_no_cpu == "the cluster has no metrics-server"


def test_the_cpu_of_a_variants_pods_is_read_while_it_is_loaded(target, program, api_server):
    """From PodMetrics, if they lie within the closed loop, whose time is that of the program's lines."""
    at = datetime.fromtimestamp(time.time() + 100, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    used = {"timestamp": at, "window": "15s", "containers": [{"usage": {"cpu": "500m"}}]}
    api_server.pods = [{"kind": "PodMetricsList", "items": [used]}]
    target = replace(target, plan=replace(PLAN, step_s=120))
    turn = load_variant(target, OWN, 3, python=sys.executable, started=lambda _: None)
    assert (turn.per_cpu_s, turn.why_no_cpu) == ((10.0,), None)


def turns(**p95_ms):
    """Turns with these latencies, by the variants' overlays and pods."""
    names = {"own": OWN.name, "two": TWO.name}
    return [
        Turn(variant=names[name], number=0, p95_ms=values, reached_per_s=(5.0,) * 3, most_per_s=(9.0,) * 3)
        for name, values in p95_ms.items()
    ]


def test_table_picture_and_overlay_are_kept(target, program, store, caplog):
    """The overlay is the text that was measured, and the log has the table."""
    found = recommend(target, turns(own=(50.0, 51.0, 49.0), two=(30.0, 31.0, 29.0)), python=sys.executable, started=lambda _: None)  # fmt: skip
    folder = sweep_run_folder("digits-vit", "abcdefabcdef", target.release.run_id)
    assert found.variant == TWO.name
    assert store.names(folder) == ["kustomization.yaml", "sweep.json", "sweep.png", "sweep.txt"]
    kept = (target.release.store.removeprefix("file://"), folder)
    text = open("/".join((*kept, "kustomization.yaml"))).read()  # noqa: PTH123, SIM115 - a test's file
    assert yaml.safe_load(text)["resources"] == ["../local"]
    assert "minReplicas: 2" in text
    assert store.read_json(f"{folder}/sweep.json")["recommended"] == TWO.name
    assert "sweep: recommended: local, 2 pods, with the smallest p95 at the rate, by more than the noise" in caplog.text


def test_no_overlay_if_none_is_recommended(target, program, store):
    """The table is kept all the same."""
    target = replace(target, plan=replace(PLAN, p95_ms=10))
    found = recommend(target, turns(own=(50.0, 51.0, 49.0)), python=sys.executable, started=lambda _: None)
    assert found.variant is None
    assert "kustomization.yaml" not in store.names(
        sweep_run_folder("digits-vit", "abcdefabcdef", target.release.run_id)
    )


def test_red_if_nothing_was_measured(target, program):
    """The line has a variant's reason."""
    none = [Turn(variant=OWN.name, number=0, why_not="pod/x: Unschedulable")]
    with pytest.raises(LoadTestUnfinished, match=r"^sweep: no variant was measured: pod/x: Unschedulable"):
        recommend(target, none, python=sys.executable, started=lambda _: None)


def test_refused_if_the_model_file_changed_since_the_dag_was_read():
    """Airflow has mapped the turns of the file as it was."""
    assert [variant_of_turn(PLAN, number, name) for number, name in ((1, TWO.name), (3, OWN.name))] == [TWO, OWN]
    for number, name in ((0, TWO.name), (4, OWN.name)):
        with pytest.raises(InputRefused, match="the model file no longer has the variant"):
            variant_of_turn(PLAN, number, name)


@pytest.fixture
def served(users_folder, installation):
    """A model file of digits-vit: `served(sweep=…)`."""
    folder = users_folder / "served"

    def write(**changes):
        golden = [{"name": "three", "image": "three.png", "label": "3"}]
        file = {"source": {"folder": "checkpoint"}, "gate": {"golden": golden}, "target": {"namespace": "shop", "overlay": "local"}}  # fmt: skip
        (folder / "digits-vit.yaml").write_text(yaml.safe_dump({**file, **changes}))

    return write


def test_the_live_release_is_chosen(served, settings, store, record_of, api_server):
    """With its export, its image, its manifests as they were applied, and this run's id."""
    write_record(store, record_of("good"))
    served(sweep={"rate_per_s": 4, "overlays": ["seed"]})
    found = choose_sweep("digits-vit", settings, run_id="this one")
    assert (found.release.run_id, found.pushed.release_id, found.export.version) == ("this one", "abcdefabcdef", 7)
    assert (found.manifests_uri, found.manifests_hash) == ("file:///store/m.yaml", "sha256:a")
    assert [one.name for one in found.plan.turns] == ["local", "seed", "seed", "local"]


@pytest.mark.parametrize(
    ("outcome", "file", "said"),
    [("failed", {"sweep": {"rate_per_s": 4, "overlays": ["seed"]}}, "no release is live and proven"), ("live", {}, "has no sweep. Next: add it")],
    ids=["nothing proven", "not in the model file"],
)  # fmt: skip
def test_refused_if_there_is_nothing_to_compare(served, settings, store, record_of, outcome, file, said):  # noqa: PLR0917
    """In one line."""
    write_record(store, record_of("one", outcome))
    served(**file)
    with pytest.raises(InputRefused, match=said):
        choose_sweep("digits-vit", settings, run_id="x")


def test_marked_graph_may_be_batched(target, settings):
    """The live release's own export decides."""
    target = replace(target, release=replace(target.release, export=MARKS))
    objects = by_kind(variant_manifests(target, replace(OWN, max_batch_size=8), 0, settings))
    assert objects["ConfigMap"]["metadata"]["name"].startswith("tfs-server-sweep-0-")
    assert json.dumps(objects["Deployment"]).count("--enable_batching") == 1

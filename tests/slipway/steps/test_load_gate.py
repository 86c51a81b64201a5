"""The load gate: what is asked of the preview and of the live release, and what is kept."""

import base64
import json
import sys
from dataclasses import asdict, replace
from urllib.parse import urlsplit

import pytest
from forwarding_pods import ForwardingCluster, described

from slipway.errors import GateFailed, LoadTestUnfinished
from slipway.names import load_run_folder
from slipway.records.record import write_record
from slipway.release import Gate, LoadBounds
from slipway.serving import load_program
from slipway.steps import load_gate
from slipway.steps.load_gate import find_live, judge_preview_under_load, measured_of, require_load_passed

PROGRAM = """
import json, sys, urllib.request
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
request = json.loads(Path(words["--request"]).read_text())
out = Path(words["--out"])
out.mkdir()
steps = []
for at, target in (("release", request["target"]), ("beside", request["beside"])):
    if target is None:
        continue
    url = f"{target['rest']}/v1/models/{target['model']}/versions/{target['version']}:predict"
    urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=20).read()
    if target["grpc"]:
        urllib.request.urlopen(f"http://{target['grpc']}/{at}", timeout=20).read()
    p95 = P95[at]
    steps += [{"at": at, "round": number + 1, "sent": 50, "requests": 40, "answered": 40, "seconds": 8, "reached_per_s": 5.0, "p50_ms": 1,
               "p95_ms": p95 + number % 2, "errors": {}} for number in range(request["plan"]["rounds"])]
(out / "load.json").write_text(json.dumps({"steps": steps, "request": request}))
(out / "load.png").write_text("picture")
"""
BOUNDS = LoadBounds(rate_per_s=5, p95_ms=100, max_slowdown=0.5)


def services_asked(server):
    """The Services that were asked through the API server, with the paths below them."""
    return [seen.path.partition("/services/")[2] for seen in server.seen if "/services/" in seen.path]


@pytest.fixture
def loaded(monkeypatch, tmp_path, store, export, case, http_server, connected, release):  # noqa: PLR0917 - fixtures
    """Loads a preview with a program in place of Locust, which asks both servers once: `loaded(release=90, beside=80)`."""
    namespace = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}}
    server = http_server((200, json.dumps({**namespace, "predictions": []})))
    connected(server)
    golden = store.put_json({"cases": [asdict(case)]}, "golden.json")
    (tmp_path / "descriptors").write_bytes(b"descriptors")
    descriptors = store.put_file(tmp_path / "descriptors", "descriptors.bin")

    def load(bounds=BOUNDS, **p95_ms):
        program = tmp_path / "program.py"
        program.write_text(f"P95 = {p95_ms}\n{PROGRAM}")
        monkeypatch.setattr(load_program, "LOADER", program)
        asked = replace(release, gate=Gate(load=bounds))
        made = replace(export, golden_uri=golden, descriptors_uri=descriptors, version=8)
        return judge_preview_under_load(asked, made, "r2", python=sys.executable, started=lambda _: None)

    load.server, load.release = server, replace(release, gate=Gate(load=BOUNDS))
    return load


def test_the_preview_and_the_live_release_are_asked_through_the_api_server(loaded, store, record_of):
    """Each at its own Service, and for its own version. The program gets loopback addresses, and no login."""
    write_record(store, record_of("good"))
    found = loaded(release=90, beside=80)
    assert found.verdict.outcome == "pass", found.verdict
    assert services_asked(loaded.server) == [
        "tfs-server:8501/proxy/v1/models/digits-vit/versions/7:predict",  # whether there is a live release to compare
        "tfs-server-preview:8501/proxy/v1/models/digits-vit/versions/8:predict",
        "tfs-server:8501/proxy/v1/models/digits-vit/versions/7:predict",
    ]
    request = found.test.figures["request"]
    assert all(request[at]["rest"].startswith("http://127.0.0.1:") for at in ("target", "beside"))
    assert request["plan"] == {"rates_per_s": [5], "closed_users": [], "step_s": 10, "settle_s": 2, "rounds": 5}


def test_the_figures_are_kept_with_the_release(loaded, store):
    """Below loads/, as those of a load test; the record has each round."""
    found = loaded(release=90)
    folder = load_run_folder("digits-vit", "r2", loaded.release.run_id)
    assert store.names(folder) == ["load.json", "load.png"]
    measured = measured_of(found.test)["load"]
    assert measured["uri"] == store.uri_of(f"{folder}/load.json")
    assert measured["rounds"][1] == {"round": 2, "at": "release", "reached_per_s": 5.0, "p50_ms": 1, "p95_ms": 91, "errors": {}}  # fmt: skip


def test_without_a_comparison_the_live_release_gets_no_load(loaded, store, record_of):
    """Its users share it with nobody."""
    write_record(store, record_of("good"))
    loaded(LoadBounds(rate_per_s=5), release=90)
    assert [path.partition(":")[0] for path in services_asked(loaded.server)] == ["tfs-server-preview"]


def test_over_grpc_the_pods_of_both_releases_are_asked(loaded, store, record_of, connected, http_server):
    """Each through a port-forward; the program gets loopback addresses, and TF Serving's messages."""
    write_record(store, record_of("good", release_id="r1"))
    server = http_server((200, "{}"))
    port = urlsplit(server.url).port
    cluster = ForwardingCluster(
        described("new", port, release_id="r2-preview"), described("old", port, release_id="r1")
    )
    connected(cluster)
    found = loaded(replace(BOUNDS, grpc_share=0.5), release=90, beside=80)
    cluster.stop()
    assert found.verdict.outcome == "pass", found.verdict
    assert [seen.path for seen in server.seen] == ["/release", "/beside"]
    assert cluster.forwarded == ["new", "old"] * 2  # once before the load, to see whether it may
    request = found.test.figures["request"]
    assert all(request[at]["grpc"].startswith("127.0.0.1:") for at in ("target", "beside"))
    assert (request["grpc_share"], base64.b64decode(request["descriptors"])) == (0.5, b"descriptors")


def test_a_first_release_has_nothing_to_compare_with(loaded):
    """It passes by its own limits."""
    found = loaded(release=90)
    assert (found.verdict.outcome, "there is no live release" in found.verdict.reason) == ("pass", True)


@pytest.mark.parametrize(
    ("p95_ms", "outcome", "blames"),
    [({"release": 200, "beside": 90}, "fail", True), ({"release": 90, "beside": 30}, "fail", True)],
    ids=["above the limit", "slower than the live release"],
)
def test_a_slow_release_is_to_blame(loaded, store, record_of, p95_ms, outcome, blames):  # noqa: PLR0917
    """The schedule does not try it again until something changes."""
    write_record(store, record_of("good"))
    found = loaded(**p95_ms)
    assert (found.verdict.outcome, found.blames_release) == (outcome, blames)
    with pytest.raises(
        GateFailed, match=r"^preview of release r2: load: .* Next: look at file://.*/load\.png"
    ) as failed:
        require_load_passed(loaded.release, found, asks=True)
    assert failed.value.blames_release
    assert failed.value.measured["load"]["rounds"]


NO_ENDPOINTS = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": "no endpoints"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, "no such model"), "version 7 answered HTTP 404: no such model"),
        ((503, json.dumps(NO_ENDPOINTS)), "version 7 did not answer: the API server: HTTP 503: no endpoints"),
    ],
)
def test_a_live_release_that_does_not_answer_is_inconclusive(  # noqa: PLR0917 - fixtures
    release, store, record_of, http_server, connected, case, monkeypatch, answer, said
):
    """Its absence proves nothing about the new one: a person decides."""
    write_record(store, record_of("good"))
    connected(http_server(answer))
    monkeypatch.setattr(load_gate, "located", lambda found: found)
    live = find_live(release, case)
    assert (live.path, live.without.outcome) == (None, "inconclusive")
    assert live.without.reason == f"load: not compared with the live release: {said}"


@pytest.mark.parametrize(
    ("ask", "asks", "goes_on"), [("ask", True, True), ("ask", False, False), ("fail", True, False)]
)
def test_an_inconclusive_result_goes_on_only_if_a_person_is_asked(loaded, ask, asks, goes_on):
    """As the gate's own."""
    found = replace(loaded(release=90), blames_release=False)
    found = replace(found, verdict=replace(found.verdict, outcome="inconclusive"))
    asked = replace(loaded.release, gate=replace(loaded.release.gate, on_inconclusive=ask))
    if goes_on:
        require_load_passed(asked, found, asks=asks)
        return
    with pytest.raises(GateFailed, match="which is not enough") as failed:
        require_load_passed(asked, found, asks=asks)
    assert not failed.value.blames_release


def test_unfinished_if_the_program_fails(loaded, store):
    """Nothing is kept, and it is tried again."""
    with pytest.raises(LoadTestUnfinished) as failed:
        loaded()  # the program fails: it knows no figure
    assert failed.value.worth_retrying
    assert not store.names("loads/digits-vit")

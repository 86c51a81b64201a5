"""Canaries in every connection, Variable and URL: after good and bad runs, none is in a fact, record, label, file or log."""

import json
import logging
import sys
import traceback
from hashlib import sha256
from types import SimpleNamespace

import pytest
import yaml
from canaries import Canaries
from engine_stub import EngineStub
from exporter_programs import replace_program
from hub_stub import REPO
from registry_stub import RegistryStub

from slipway.errors import SlipwayError
from slipway.facts import to_dict
from slipway.image.build import plan_image_changes, plan_image_labels
from slipway.image.registry import repository_at
from slipway.model.export import run_export
from slipway.model.exporter import WorkerHost
from slipway.model.hub import hub_commit
from slipway.names import digest_of
from slipway.records.record import close_run, new_record, read_record, utc_now, write_record
from slipway.records.store import Store
from slipway.steps.plan import make_plan
from slipway.steps.resolve import resolve
from slipway.steps.settings import RefreshParams, read_settings

FETCHER = """
import json, sys
request = json.load(open(sys.argv[2]))
with open({seen!r}, "w") as seen:
    json.dump([request["source"]["url"], sys.argv], seen)
with open(request["source"]["kept"], "w") as kept:
    kept.write("archive")
"""
EXPORTER = """
import json, pathlib, sys
request, out = json.load(open(sys.argv[2])), pathlib.Path(sys.argv[4])
for folder in ("savedmodel", "golden/three", "card"):
    (out / folder).mkdir(parents=True)
(out / "savedmodel" / "saved_model.pb").write_text("graph")
case = {"name": "three", "label": "3", "min_confidence": 0.8, "reference": None}
(out / "golden" / "three" / "case.json").write_text(json.dumps(case))
(out / "golden" / "three" / "rest.json").write_text("{}")
(out / "golden" / "three" / "grpc.bin").write_bytes(b"x")
(out / "descriptors.bin").write_bytes(b"x")
(out / "export.json").write_text(json.dumps({"origin": request["origin"], "sandbox": "none"}))
card = {"source": request["origin"], "parity": None, "parameters": None, "bytes": 1, "measured": {}}
(out / "card" / "card.json").write_text(json.dumps(card))
(out / "card" / "README.md").write_text(json.dumps(card))
print("exported", flush=True)
"""


@pytest.fixture
def planted(monkeypatch, tmp_path, api_server, hub, http_server, digits_checkpoint, installation):  # noqa: PLR0917 - fixtures
    """An Airflow with canaries everywhere, and the small servers that it reaches; the model file `vit` uses them all."""
    canaries = Canaries()
    engine, pictures = EngineStub(), http_server((200, "pixels"))
    registry = RegistryStub(challenge='Basic realm="here"')
    registry.push("old", a="b")
    kubeconfig = tmp_path / "kubeconfig-kubernetes_default"
    config = json.loads(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": canaries.plant("kubeconfig: token")}
    kubeconfig.write_text(json.dumps(config))

    def connect(name, **said):
        extra = {**said.pop("extra", {}), "note": canaries.plant(f"connection {name}: extra")}
        password = said.setdefault("password", canaries.plant(f"connection {name}: password"))
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"login": "shop", "extra": extra, **said}))
        return password

    connect("DOCKER_DEFAULT", conn_type="docker", host=engine.host)
    connect("KUBERNETES_DEFAULT", conn_type="kubernetes", extra={"kube_config_path": str(kubeconfig)})
    password = connect("REGISTRY", conn_type="docker", host=registry.host)
    token = connect("HUB", conn_type="http")
    connect("OTHER", conn_type="postgres", host=registry.host)
    hub.add(digits_checkpoint, private=True, readers={token})
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("AIRFLOW_VAR_UNRELATED", canaries.plant("Variable unrelated"))

    query, golden = (canaries.plant_quoted(f"query of {name}") for name in ("source.savedmodel", "a golden image"))
    file = {
        "source": {"savedmodel": f"http://127.0.0.1:1/m.tar.gz?sig={query}", "sha256": sha256(b"archive").hexdigest()},
        "gate": {"golden": [{"name": "three", "image": f"{pictures.url}/three.png?sig={golden}", "sha256": sha256(b"pixels").hexdigest(), "label": "3"}]},
        "image": {"base": "mirror.example/base:1", "repository": f"{registry.host}/vit", "registry_conn_id": "registry"},
        "target": {"namespace": "shop"},
    }  # fmt: skip
    served = tmp_path / "served"
    served.mkdir()
    (served / "vit.yaml").write_text(yaml.safe_dump(file))
    monkeypatch.setenv("AIRFLOW__SLIPWAY__FOLDER", str(tmp_path))
    for name, text in {"fetcher": FETCHER.format(seen=str(tmp_path / "seen.json")), "exporter": EXPORTER}.items():
        program = tmp_path / f"{name}.py"
        program.write_text(text)
        replace_program(monkeypatch, name, program)
    yield SimpleNamespace(
        canaries=canaries, engine=engine, hub=hub, registry=registry, pictures=pictures, path=served / "vit.yaml", file=file,
        password=password, token=token, store=tmp_path / "store", seen=tmp_path / "seen.json", query=query, golden=golden,
    )  # fmt: skip
    engine.stop()
    registry.stop()


@pytest.fixture
def logged(caplog, store):
    """All log lines; httpx is as quiet as Airflow makes it, because its lines have whole URLs."""
    caplog.set_level("DEBUG")
    caplog.set_level("WARNING", logger="httpx")
    return caplog


def run(planted):
    """A run, as far as it needs no engine that builds: its facts, and what is written about it."""
    release = resolve(planted.path, RefreshParams(), read_settings(), run_id="r1")
    plan, trials = make_plan(release, by_hand=True)
    export = run_export(release, WorkerHost(sys.executable))
    with repository_at(release.repository, release.registry_conn_id) as repository:
        images = [(image.tag, image.labels) for image in repository.tagged()]
    commit = hub_commit(REPO, "main", token_conn_id="hub")
    store = Store(release.store)
    write_record(store, new_record(release, now=utc_now()))
    close_run(release, {}, {}, proven=False, applied=False)
    labels = plan_image_labels(release, export), plan_image_changes(release, export)
    facts = [to_dict(release), to_dict(plan), [repr(trial) for trial in trials], to_dict(export)]
    return [*facts, labels, images, commit, repr(release), digest_of(to_dict(release)), read_record(store, "vit", "r1")]


def test_no_canary_is_left_by_a_good_run(planted, logged, capfd):
    """Each secret reaches the server that it is for, and is nowhere else."""
    facts = run(planted)
    login = {"username": "shop", "password": planted.password, "serveraddress": planted.registry.host}
    assert planted.engine.logins == [login]
    assert [(image, sent and sent["password"]) for image, sent in planted.engine.sent] == [
        ("mirror.example/base:1/json", None),
        (f"{planted.registry.host}/vit/json", planted.password),
    ]
    assert {planted.canaries.found_in(str(sent))[0] for sent in planted.registry.logins if sent} == {
        "connection REGISTRY: password"
    }
    assert [asked.path for asked in planted.pictures.seen] == [f"/three.png?sig={planted.golden}"]
    url, arguments = json.loads(planted.seen.read_text())
    assert url == planted.file["source"]["savedmodel"]
    printed = "".join(capfd.readouterr())
    for place, text in {"facts": facts, "arguments": arguments, "log": logged.text, "output": printed}.items():
        assert (place, planted.canaries.found_in(text)) == (place, [])
    assert planted.canaries.found_in_files(planted.store) == []
    assert any(planted.store.rglob("card.json"))


def write(planted, **parts):
    """Change parts of the model file."""
    planted.path.write_text(yaml.safe_dump({**planted.file, **parts}))


def image_of(planted, **fields):
    """Change fields of its image."""
    write(planted, image={**planted.file["image"], **fields})


def source_of(planted, **fields):
    """Change fields of its source."""
    write(planted, source={**planted.file["source"], **fields})


def golden_of(planted, **fields):
    """Change fields of its golden image."""
    write(planted, gate={"golden": [{**planted.file["gate"]["golden"][0], **fields}]})


BAD = {
    "another registry": (lambda planted: image_of(planted, repository="r.example/vit"), "connection registry: its login is for"),
    "a connection of another type": (lambda planted: image_of(planted, registry_conn_id="other"), "connection other: is of type postgres"),
    "an engine of another type": (lambda planted: image_of(planted, engine_conn_id="other"), "connection other: is of type postgres"),
    "a cluster of another type": (lambda planted: write(planted, target={"conn_id": "other"}), "connection other: is of type postgres"),
    "a login in the address": (lambda planted: write(planted, target={"address": f"http://me:{planted.golden}@x"}), ".*target.address: has a login"),
    "a login in the source": (lambda planted: source_of(planted, savedmodel=f"http://{planted.query}@x"), ".*source.savedmodel: has a login"),
    "a login in the base image": (lambda planted: image_of(planted, base=f"me:{planted.query}@x/y"), ".*image.base: is not an image"),
    "a login in the repository": (lambda planted: image_of(planted, repository=f"me:{planted.query}@x/y"), ".*image.repository: x/y is not"),
    "not a hash": (lambda planted: source_of(planted, sha256="x"), ".*source.sha256: "),
    "not YAML": (lambda planted: planted.path.write_text(f"source: {{savedmodel: 'http://x?{planted.query}"), ".*not YAML"),
    "another golden image": (lambda planted: golden_of(planted, sha256="1" * 64), "golden case three: .* its sha256 is not "),
    "no golden image": (lambda planted: golden_of(planted, image=f"http://127.0.0.1:1/?{planted.golden}"), "golden case three: .*Next: check"),
    "no exporter": (lambda planted: planted.seen.mkdir(), "exporter ended with status 1: "),
    "no access to the Hub's model": (lambda planted: planted.hub.repos[REPO].readers.clear(), "source.hub .*: no such model"),
    "a registry that refuses the login": (lambda planted: setattr(planted.registry, "challenge", "Bearer realm=\"http://x?{planted.golden}\""), ".*token server"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_no_canary_is_left_by_a_bad_run(planted, logged, capfd, spoil, words):
    """Neither the one line nor the traceback that Airflow logs has a secret."""
    spoil(planted)
    with pytest.raises(SlipwayError, match=f"^{words}") as refusal:
        run(planted)
    logging.getLogger(__name__).error("the task failed", exc_info=refusal.value)
    said = "".join(traceback.format_exception(refusal.value))
    for place, text in {"error": said, "log": logged.text, "output": "".join(capfd.readouterr())}.items():
        assert (place, planted.canaries.found_in(text)) == (place, [])
    assert planted.canaries.found_in_files(planted.store) == []

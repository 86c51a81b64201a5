"""Facts that the tests start from: one release, its export and golden cases, and small real servers."""

import base64
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from types import SimpleNamespace

import pytest
from google_clock import Clock

from slipway.dag import run_lease
from slipway.facts import Applied, Export, Image, ObjectRef, Proof, Pushed, to_dict
from slipway.kubernetes.lease import Held
from slipway.records.record import closed, new_record, opened
from slipway.records.store import Store
from slipway.release import GoldenRequest, Release, Source
from slipway.serving.golden import GoldenCase, Reference
from slipway.target import Target
from slipway.verdict import Verdict

SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
DEPLOYMENT = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")


@pytest.fixture
def store(tmp_path):
    """An artifact store in a folder."""
    store = Store(f"file://{tmp_path}/store")
    store.exists("records")  # Airflow sets its logging up when it is used first: not while a test listens
    return store


@pytest.fixture
def release(store):
    """A release of digits-vit."""
    return Release(
        model="digits-vit",
        run_id="manual__2026-11-22T21:00:00+00:00",
        source=Source(kind="folder", location="digits-vit/checkpoint", revision=f"sha256:{'1' * 64}"),
        exporter=f"sha256:{'e' * 64}",
        base_image="tensorflow/serving:2.20.0",
        base_digest=f"sha256:{'2' * 64}",
        repository="127.0.0.1:5000/shop/digits-vit",
        engine_conn_id="docker_default",
        registry_conn_id=None,
        target=Target(conn_id="kubernetes_default", namespace="shop"),
        deployment="tfs-server",
        overlay=None,
        address=None,
        golden=(
            GoldenRequest(
                name="three", image="digits-vit/golden/three.png", sha256=None, label="3", min_confidence=0.8
            ),
        ),
        gate_passes=3,
        gate_timeout_s=300,
        rollout_timeout_s=900,
        address_timeout_s=600,
        manifests_hash=f"sha256:{'a' * 64}",
        store=store.uri,
        force=False,
        keep_first=False,
    )


@pytest.fixture
def export():
    """What the exporter left for it."""
    return Export(
        version=7,
        content_hash=f"sha256:{'c' * 64}",
        model_uri="file:///store/exports/digits-vit/7/model.tar",
        golden_uri="file:///store/exports/digits-vit/7/golden.json",
        descriptors_uri="file:///store/exports/digits-vit/7/descriptors.bin",
        report_uri="file:///store/exports/digits-vit/7/export.json",
    )


@pytest.fixture
def case():
    """A golden case with a reference."""
    return GoldenCase(
        name="three",
        label="3",
        min_confidence=0.8,
        reference=Reference(label="3", confidence=0.95, tolerance=0.01),
        rest_body=json.dumps({"signature_name": "serving_default", "instances": ["aW1hZ2U"]}),
        grpc_request="",
    )


@pytest.fixture
def proof():
    """A smoke test that passed."""
    image = Image(
        image_id=f"sha256:{'9' * 64}",
        layer=f"sha256:{'8' * 64}",
        reference="127.0.0.1:5000/shop/digits-vit:v7-cc",
        version=7,
    )
    return Proof(
        image=image, verdicts=(Verdict.passed("version 7 is AVAILABLE"), Verdict.passed("garbage was refused"))
    )


@pytest.fixture
def applied(pushed):
    """What was applied of the release."""
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri="file:///store/manifests/digits-vit/abcdefabcdef.yaml",
        manifests_hash="sha256:" + "9" * 64,
        objects=(ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop"),),
        pruned=(),
        uid="u-1",
        generation=4,
    )


@pytest.fixture
def pushed():
    """The image as the registry holds it."""
    digest = f"sha256:{'d' * 64}"
    return Pushed(
        reference=f"127.0.0.1:5000/shop/digits-vit@{digest}", digest=digest, release_id="abcdefabcdef", version=7
    )


@pytest.fixture
def record_of(release, export, pushed):
    """Makes a record: `record_of("run", outcome, minutes, release_id=…, objects=…, **release fields)`."""

    def make(run_id, outcome="live", minutes=0, *, release_id=None, objects=(SERVICE, DEPLOYMENT), **changes):
        opened_at = datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(minutes=minutes)
        tried = replace(release, run_id=run_id, **changes)
        record = opened(
            new_record(tried, now=opened_at),
            release=tried,
            export=export,
            pushed=replace(pushed, release_id=release_id or pushed.release_id),
            manifests={"uri": "file:///store/m.yaml", "hash": "sha256:a"},
            objects=list(objects),
            now=opened_at,
        )
        ended = closed(record, proven=outcome == "live", verdicts={}, tasks={}, now=opened_at)
        return json.loads(json.dumps(record if outcome == "open" else ended))

    return make


class Left:
    """What the tasks of one run have left each other, read and written as Airflow's task instance does."""

    def __init__(self, task_id, **facts):
        self.task_id, self.dag_id = task_id, "refresh_digits_vit"
        self.ended, self.states = set(), {}
        self.try_number, self.max_tries = 1, 3
        self.facts = {(task, "return_value"): fact for task, fact in facts.items()}

    def xcom_pull(self, *, task_ids, key="return_value"):
        """What a task left under a key, None where it left nothing."""
        return self.facts.get((task_ids, key))

    def xcom_push(self, *, key, value):
        """Leave something of the task at hand."""
        self.facts[self.task_id, key] = value

    def get_task_states(self, *, dag_id, run_ids):
        """The states of the run's tasks."""
        return dict.fromkeys(run_ids, self.states if dag_id == self.dag_id else {})

    def get_dagrun_state(self, dag_id, run_id):
        """What Airflow says of a run."""
        return "failed" if (dag_id, run_id) in self.ended else "running"


@pytest.fixture
def context_of():
    """Makes the context of a task in a run whose tasks have left these facts: `context_of("gate", resolve=…)`."""

    def make(task_id, **facts):
        return {
            "ti": Left(
                task_id, **{task: fact if isinstance(fact, str) else to_dict(fact) for task, fact in facts.items()}
            ),
            "run_id": "manual__2026-11-22T21:00:00+00:00",
            "dag_run": SimpleNamespace(run_type="manual", clear_number=0),
            "params": {},
        }

    return make


@pytest.fixture(autouse=True)
def _named(monkeypatch):
    """The name of this Airflow among those that share a target."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "here")


@pytest.fixture
def leases(monkeypatch):
    """What is asked of the target's Lease in place of the API server, and what that answers: nothing, or an error."""
    asked, answers = [], []

    def acquire(place, me, *, limit_s, **_):
        asked.append((place.name, me.dag_id, limit_s))
        if answers:
            raise answers.pop()
        return Held(until="2026-11-24T08:00:00+00:00", broke=None)

    monkeypatch.setattr(run_lease, "acquire", acquire)
    return SimpleNamespace(asked=asked, answers=answers)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The stand's emulator of Google in this process, on a free port; its identity beside it."""
    from local.gke import clusters, emulator, identity, tokens

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("gke")
    ours = identity.make_identity(folder, f"slipway.localhost:{port}", base64.b64encode(b"").decode())
    google = clusters.Google(clusters.Kubernetes(endpoint="127.0.0.1:1", ca=""), time.time)
    issuer = tokens.issuer_of(ours, "gke:tests")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(ours.bundle))  # gRPC reads it once
    patch.setattr(socket, "getaddrinfo", with_localhost(socket.getaddrinfo))
    with emulator.serve(google, issuer, ours):
        yield SimpleNamespace(google=google, identity=ours, clusters=clusters, issuer=issuer)
    patch.undo()


def with_localhost(getaddrinfo):
    """What `up --gke` puts into the hosts file: names below the emulator's domain are this machine."""

    def look_up(host, *words, **options):
        return getaddrinfo("127.0.0.1" if str(host).endswith(".slipway.localhost") else host, *words, **options)

    return look_up


@pytest.fixture
def google(emulator, monkeypatch):
    """Google without a cluster or faults, whose clock stands still; the connection `google_cloud_default` reaches it."""
    state = emulator.google
    state.reset()
    state.clock = Clock()
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", emulator.identity.universe)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(emulator.identity.bundle))
    extra = {"key_path": str(emulator.identity.key_file)}
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    )

    async def answers(_target):
        return "v1.34.4"

    monkeypatch.setattr(import_module("slipway.dag.triggers.gke"), "server_version", answers)
    monkeypatch.setattr(import_module("slipway.google"), "_endpoints", {})
    return state


@pytest.fixture
def http_server():
    """Starts a real HTTP server: `http_server(answers)` gives its url and the requests that it saw.

    `answers` are (status, body) in turn; the last one is given for ever.
    """
    servers = []

    def start(*answers):
        seen, left = [], list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                seen.append(
                    SimpleNamespace(
                        method=self.command,
                        path=self.path,
                        body=self.rfile.read(length).decode(),
                        client=self.client_address,
                    )
                )
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_DELETE = do_POST  # noqa: N815 - the names are http.server's

            def log_message(self, *_):
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", seen=seen)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def grpc_server():
    """Starts a real gRPC server: `grpc_server(*answers)` gives its address and the requests that it saw."""
    from grpc_serving import GrpcServing

    servers = []

    def start(*answers):
        servers.append(GrpcServing(*answers))
        return servers[-1]

    yield start
    for one in servers:
        one.server.stop(0).wait()


@pytest.fixture
def closed_url():
    """A URL where nobody listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def connected(monkeypatch, tmp_path):
    """Lets the connection of the release name a server of the tests as its cluster."""

    def connect(server):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        said = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "kubeconfig")}}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(said))

    return connect

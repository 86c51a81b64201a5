"""The exporter's pod on the stand's cluster. Its image has Python alone, and small programs take the exporter's place."""

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from local.parts.server_image import debian_base
from local.programs.docker_client import docker
from local.settings import settings_here
from slipway.dag.export_pod import PodHost
from slipway.errors import ExportError, ExportInterrupted, ExportOverLimit, PromiseBroken, SourceUnreachable
from slipway.kubernetes.rights import inspect_export_rights
from slipway.names import digest_of, short
from slipway.paths import INCLUDE
from slipway.release import ExportLimits, ExportPod
from slipway.runtimes import RUNTIMES

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

DOCKERFILE = """
FROM {debian}
RUN mkdir -p /opt/slipway/model/bin && ln -s /usr/bin/python3 /opt/slipway/model/bin/python
COPY model.txt /opt/slipway/model.txt
USER 1000
"""
LOCK = (INCLUDE / "model" / "requirements.txt").read_text()
READ = """
import json, os, pathlib, sys, time
request = json.loads(pathlib.Path(sys.argv[2]).read_text())
out = pathlib.Path(sys.argv[4])
"""
LOOK = (
    READ
    + """
print("looking around")
source = pathlib.Path(request["source"]["path"])
import subprocess
found = {
    "source": sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()),
    "golden": [pathlib.Path(case["image"]).stat().st_size for case in request["golden"]],
    "code": sorted(path.name for path in pathlib.Path(__file__).parent.iterdir() if path.suffix == ".py"),
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "variables": sorted(name for name in os.environ if "AIRFLOW" in name or "TOKEN" in name or name.startswith("TFS")),
    "user": os.getuid(),
    "writable": [place for place in ("/", "/opt", "/etc") if os.access(place, os.W_OK)],
    "limits": request["limits"],
}
(out / "model" / "empty").mkdir(parents=True)
(out / "model" / "weights").write_bytes(os.urandom(3 << 20))
os.link(out / "model" / "weights", out / "model" / "again")
os.symlink("/etc/passwd", out / "model" / "passwd")
(out / "found.json").write_text(json.dumps(found))
"""
)


def pushed(stand, folder, lock, name):
    """An image of Python with this lock, in the stand's registry."""
    host, reference = stand["docker_host"], f"{stand['registry']}/{name}"
    (folder / "Dockerfile").write_text(DOCKERFILE.format(debian=debian_base(settings_here(), host)))
    (folder / "model.txt").write_text(lock)
    docker(host, "build", "--tag", reference, folder)
    docker(host, "push", reference)
    return reference


@pytest.fixture(scope="session")
def image(stand, tmp_path_factory):
    """An image of Python alone in the stand's registry, which says that it has the exporter's requirements."""
    return pushed(stand, tmp_path_factory.mktemp("image"), LOCK, "exporter:trial")


@pytest.fixture
def host(stand, exports_kubeconfig, image, context_of, monkeypatch):
    """The stand's cluster as a place for exports."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(exports_kubeconfig)}}
    monkeypatch.setenv("AIRFLOW_CONN_EXPORTS", json.dumps(connection))
    pod = ExportPod(conn_id="exports", namespace=stand["namespace"], image=image, cpu=0.1, memory_mib=64)
    context = {**context_of("export"), "dag": SimpleNamespace(parent_dag=None)}
    return PodHost(context, pod, lambda _: None)


@pytest.fixture
def opened(host, release, tmp_path, monkeypatch, kubectl):
    """Run a program in place of the exporter in a pod, with the release's limits; the folder of its results."""

    def run(program, *, host=host, **limits):
        code = tmp_path / "programs" / "model"
        code.mkdir(parents=True)
        (code / "export.py").write_text(program)
        (code / "other.py").touch()
        monkeypatch.setitem(
            RUNTIMES, "tensorflow", replace(RUNTIMES["tensorflow"], exporter=code / "export.py", code=(code,))
        )
        source = tmp_path / "source"
        (source / "nested").mkdir(parents=True)
        (source / "config.json").write_text("{}")
        (source / "nested" / "labels.txt").write_text("three")
        (tmp_path / "golden-three").write_bytes(b"image")
        request = {
            "source": {"kind": "folder", "path": str(source), "allow": []},
            "golden": [{"name": "three", "image": str(tmp_path / "golden-three")}],
            "limits": {"memory_mib": limits.get("memory_mib", 16384)},
        }
        scratch = tmp_path / "scratch"
        (scratch / "work").mkdir(parents=True)
        (scratch / "request.json").write_text(json.dumps(request))
        asked = replace(release, model="podded", limits=ExportLimits(**limits))
        return host.open_model(asked, scratch / "request.json", scratch)

    yield run
    left = kubectl("get", "pods", "-l", "slipway/model=podded", "-o", "name")
    assert left == "", "a pod was left"


def test_pod_gets_the_inputs_and_nothing_else(opened):
    """The program reads source, golden images and code; it has no token, no variables of services, and can write to its volumes only."""
    out = opened(LOOK)
    found = json.loads((out / "found.json").read_text())
    assert found == {
        "source": ["config.json", "nested/labels.txt"],
        "golden": [5],
        "code": ["export.py", "other.py"],
        "token": False,
        "variables": [],
        "user": 1000,
        "writable": [],
        "limits": {"memory_mib": 16384},
    }
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "found.json",
        "model/again",
        "model/weights",
    ]
    assert (out / "model" / "again").read_bytes() == (out / "model" / "weights").read_bytes()
    assert (out / "model" / "weights").stat().st_size == 3 << 20


def test_the_logs_have_the_exporters_lines(opened, capsys):
    """A person sees in the task's log what the exporter says."""
    opened(LOOK)
    assert "exporter: looking around" in capsys.readouterr().out


FAILURES = {
    "refused": (1, ExportError, r"^exporter ended with status 1: why\. Next: this$"),
    "bad model": (65, PromiseBroken, r"^exporter ended with status 65: why\. Next: this$"),
    "no answer": (75, SourceUnreachable, r"^exporter ended with status 75: why\. Next: this$"),
}


@pytest.mark.parametrize(("status", "kind", "words"), FAILURES.values(), ids=FAILURES)
def test_exporters_own_words_are_the_error(opened, status, kind, words):
    """The pod's exit status says what kind of error it is, as on a worker."""
    with pytest.raises(kind, match=words) as refusal:
        opened(f"import sys\nprint('why. Next: this', file=sys.stderr)\nsys.exit({status})")
    assert type(refusal.value) is kind


def test_ended_if_it_needs_more_memory(opened):
    """The kernel ends the container, and the error names the limit."""
    with pytest.raises(ExportOverLimit, match=r"needs more memory than export\.limits\.memory_mib, 64\. Next: "):
        opened("kept = bytearray(b'x') * (200 << 20)", memory_mib=64)


def test_results_that_are_too_large_are_refused(opened):
    """No more is fetched than the model file allows."""
    write = (
        READ
        + "out.mkdir()\n(out / 'weights').write_bytes(bytes(19 << 20))\nfor n in range(3):\n    os.link(out / 'weights', out / str(n))"
    )
    with pytest.raises(ExportOverLimit, match=r"the results are more than export\.limits\.disk_mib, 20 MiB\. Next: "):
        opened(write, disk_mib=20)


def test_refused_if_the_image_has_other_requirements(opened, host, stand, tmp_path):
    """An image of another Slipway is refused before it opens the model."""
    (tmp_path / "image").mkdir()
    other = pushed(stand, tmp_path / "image", "tensorflow-cpu==1.0\n", "exporter:other")
    with pytest.raises(ExportError, match=r"the image has other requirements .* Next: build it again"):
        opened(LOOK, host=replace(host, pod=replace(host.pod, image=other)))


def test_refused_if_the_image_is_missing(opened, host):
    """The error has the pod's own message."""
    missing = replace(host.pod, image=f"{host.pod.image}-missing")
    with pytest.raises(
        ExportError, match=r"^exporter's pod in namespace .*(ErrImagePull|ImagePullBackOff|not found).*Next: "
    ):
        opened(LOOK, host=replace(host, pod=missing))


def test_plan_names_the_rights_that_an_export_lacks(host, surroundings, monkeypatch):
    """The documented rights are enough; the account that deploys has not all of them."""
    assert [finding.outcome for finding in inspect_export_rights(host.pod)] == ["ok"]
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    [missing] = inspect_export_rights(replace(host.pod, conn_id="kubernetes_default"))
    assert missing.outcome == "missing"
    assert "create pods, get pods, patch pods, delete pods, get pods/exec, create pods/exec" in missing.said


def test_refused_if_the_namespace_is_missing(opened, host):
    """What the API server refuses is said in one line, with the rights that are needed."""
    with pytest.raises(
        ExportError, match=r"in namespace nowhere of connection exports: 40[34] .*Next: give the connection"
    ) as refusal:
        opened(LOOK, host=replace(host, pod=replace(host.pod, namespace="nowhere")))
    assert "\n" not in str(refusal.value)


def left_pod(kubectl, host, name, labels):
    """Make a pod that sleeps."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    safe = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {"name": "base", "image": host.pod.image, "command": ["sleep", "600"], "securityContext": secure}
    spec = json.dumps({"spec": {"securityContext": safe, "containers": [container]}})
    kubectl("run", name, f"--image={host.pod.image}", f"--labels={labels}", f"--overrides={spec}")


def test_pods_of_a_killed_worker_are_deleted_by_the_next_export(opened, host, kubectl, release):
    """A task whose worker died leaves a pod; the next try deletes it before it makes its own."""
    owner = short(digest_of([release.store, release.store_uid, release.installation]))
    labels = f"app.kubernetes.io/name=slipway-export,slipway/model=podded,slipway/owner={owner}"
    left_pod(kubectl, host, "slipway-left", labels)
    opened(LOOK)
    assert kubectl("get", "pods", "-l", "slipway/model=podded", "-o", "name") == ""


def test_pod_of_another_airflow_is_kept(opened, host, kubectl):
    """Two Airflows may share a namespace, and export models of the same name at the same moment."""
    name, labels = "slipway-others", "app.kubernetes.io/name=slipway-export,slipway/owner=other"
    left_pod(kubectl, host, name, f"{labels},slipway/model=podded")
    try:
        opened(LOOK)
        assert name in kubectl("get", "pods", "-o", "name")
    finally:
        kubectl("delete", "pod", name, "--grace-period=0", "--force")


def test_retryable_if_somebody_deletes_the_pod(opened, kubectl):
    """A drained node, a preemption, a person: the export begins again."""

    def delete():
        while "Running" not in kubectl("get", "pods", "-l", "slipway/model=podded"):
            time.sleep(0.2)
        time.sleep(3)
        kubectl("delete", "pods", "-l", "slipway/model=podded", "--grace-period=0", "--force")

    deleting = threading.Thread(target=delete)
    deleting.start()
    with pytest.raises(ExportInterrupted):
        opened("import time\nwhile True: time.sleep(1)")
    deleting.join()


def test_killed_task_deletes_the_pod(opened, host, kubectl):
    """`on_kill` of the task ends the export at once."""
    ended = []

    def kill():
        while "Running" not in kubectl("get", "pods", "-l", "slipway/model=podded"):
            time.sleep(0.2)
        host.end()
        ended.append(True)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ExportError):
        opened("import time\nwhile True: time.sleep(1)")
    killer.join()
    assert ended

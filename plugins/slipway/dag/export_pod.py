"""The exporter's pod: KubernetesPodOperator, with files sent in and results fetched through the API server.

The pod that opens a model has no token, no connection and no store: the task reads the store, sends the pod what it needs, and
fetches the results. So the pod works with any store and needs no network.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.xcom_sidecar import PodDefaults
from airflow.sdk.exceptions import AirflowException
from kubernetes import client as k8s
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from urllib3.exceptions import HTTPError
from websocket import WebSocketException

from slipway.errors import (
    ClusterUnreachable,
    ExportError,
    ExportInterrupted,
    ExportOverLimit,
    SlipwayError,
    one_line,
    plain_line,
)
from slipway.kubernetes.api import refusal_message
from slipway.model.content import file_hash, unpack_folder
from slipway.model.exporter import LAST_LINES, exporter_failure
from slipway.model.limits import MIB
from slipway.model.pod_inputs import INPUTS, exporter_in_pod, pack_inputs
from slipway.names import LABEL_MODEL, LABEL_OWNER, digest_of, short
from slipway.paths import INCLUDE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.programs import Started
    from slipway.release import ExportPod, Release

PROGRAMS = INCLUDE / "export_pod"
START_S = 900  # for a node to be found, or added, and again for the image: a gigabyte
SEND_S = 600  # for the inputs to come
SILENCE_S = 120  # without a byte from the pod
ENDED_LOOKS = 10  # a second apart
CHUNK_BYTES = 1024 * 1024
USER = 1000
OUT_OF_MEMORY = "OOMKilled"
OVER_LIMIT = ("Evicted", "DeadlineExceeded")
DISRUPTED = "DisruptionTarget"  # a condition of pods that a drain, a preemption or a lost node ends
GONE = 404
TERMINATED = 128 + 15  # the exit status after SIGTERM
AGAIN = "Next: nothing, the task tries again; if it has no tries left, clear it"

log = logging.getLogger(__name__)


class ExporterPod(KubernetesPodOperator):
    """Runs the exporter as a pod, for the task that makes it; `results` gets a tar of what it wrote."""

    def __init__(self, *, release: Release, pod: ExportPod, inputs: Path, results: Path, **kwargs: Any) -> None:
        runtime = release.served_by
        lock = file_hash(INCLUDE.parent / runtime.lock)
        super().__init__(
            kubernetes_conn_id=pod.conn_id,
            namespace=pod.namespace,
            name=f"slipway-export-{release.model}",
            labels={
                "app.kubernetes.io/name": "slipway-export",
                LABEL_MODEL: release.model,
                LABEL_OWNER: short(digest_of([release.store, release.store_uid, release.installation])),
            },
            image=pod.image,
            image_pull_secrets=[k8s.V1LocalObjectReference(name=pod.image_pull_secret)]
            if pod.image_pull_secret
            else None,
            cmds=[runtime.default_python, "-c", _program("wait")],
            arguments=[runtime.lock_in_image, lock, exporter_in_pod(runtime), str(SEND_S)],
            env_vars={
                "HOME": PodDefaults.XCOM_MOUNT_PATH,
                "TMPDIR": PodDefaults.XCOM_MOUNT_PATH,
                "PYTHONUNBUFFERED": "1",
            },
            container_resources=k8s.V1ResourceRequirements(
                requests={"cpu": str(pod.cpu), "memory": f"{min(pod.memory_mib, release.limits.memory_mib)}Mi"},
                limits={"memory": f"{release.limits.memory_mib}Mi"},
            ),
            node_selector=pod.node_selector or None,
            volumes=[_folder("inputs", release.limits.download_mib + 1024)],
            volume_mounts=[k8s.V1VolumeMount(name="inputs", mount_path=INPUTS)],
            automount_service_account_token=False,
            security_context=_security_of_pod(),
            container_security_context=_security_of_container(),
            # A pod whose task was killed ends by itself.
            active_deadline_seconds=2 * START_S + SEND_S + release.limits.cpu_s,
            startup_timeout_seconds=START_S,
            schedule_timeout_seconds=START_S,
            startup_check_interval_seconds=1,
            base_container_status_polling_interval=1,
            on_finish_action="delete_pod",
            termination_grace_period=0,
            log_events_on_failure=False,  # the error says why
            log_pod_spec_on_failure=False,
            log_formatter=self._note,
            do_xcom_push=True,  # the provider's sidecar keeps the results until they are fetched
            **kwargs,
        )
        # A new try deletes what a killed one left. Newer providers call the argument `durable`.
        self.reattach_on_restart = False
        self.release, self.inputs, self.results = release, inputs, results
        self.is_supplied = False  # with its inputs: from then on only the exporter should end it
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)

    def _note(self, _container: str, line: str) -> str:
        self.last_lines.append(plain_line(line.rstrip()))
        return f"exporter: {self.last_lines[-1]}"

    def build_pod_request_obj(self, context: Context | None = None, **kwargs: Any) -> k8s.V1Pod:
        """The pod: its sidecar is of the same image and has the same restrictions; what the model writes is limited."""
        pod = super().build_pod_request_obj(context, **kwargs)
        _, sidecar = pod.spec.containers
        sidecar.image, sidecar.security_context = self.image, _security_of_container()
        [written] = [volume for volume in pod.spec.volumes if volume.name == PodDefaults.VOLUME.name]
        written.empty_dir = k8s.V1EmptyDirVolumeSource(size_limit=f"{self.release.limits.disk_mib}Mi")
        pod.spec.enable_service_links = False
        return pod

    def await_pod_start(self, pod: k8s.V1Pod) -> None:
        """Wait for it, then send the inputs."""
        super().await_pod_start(pod)
        log.info("export: pod %s runs; sending %.1f MiB", pod.metadata.name, self.inputs.stat().st_size / MIB)
        try:
            self._send(pod)
            self.is_supplied = True
        except (ApiException, ExportInterrupted):
            if not self._ends(pod):
                raise  # otherwise its log, which is read next, says why

    def _ends(self, pod: k8s.V1Pod) -> bool:
        """Whether the exporter has ended, or does so within moments: the API server hears of it a little later."""
        for _ in range(ENDED_LOOKS):
            if _state_of(self.pod_manager.read_pod(pod), self.base_container_name).exit_code is not None:
                return True
            time.sleep(1)
        return False

    def _send(self, pod: k8s.V1Pod) -> None:
        size = self.inputs.stat().st_size
        with _command(
            self.client, pod, self.base_container_name, [_program("receive"), str(size)], self.python
        ) as channel:
            with self.inputs.open("rb") as reader:
                while chunk := reader.read(CHUNK_BYTES):
                    channel.write_stdin(chunk)
            _finish(channel, "sending the inputs")

    @property
    def python(self) -> str:
        """The interpreter in the image."""
        return self.release.served_by.default_python

    def extract_xcom(self, pod: k8s.V1Pod, **_: Any) -> None:
        """Fetch the results from the sidecar, if the exporter succeeded."""
        remote = self.pod_manager.read_pod(pod)
        if _state_of(remote, self.base_container_name).exit_code != 0:
            return
        most = self.release.limits.disk_mib * MIB
        with self.results.open("wb") as writer:
            self._fetch(pod, writer, most)
        log.info("export: fetched %.1f MiB", self.results.stat().st_size / MIB)

    def _fetch(self, pod: k8s.V1Pod, writer: BinaryIO, most: int) -> None:
        got = 0
        with _command(self.client, pod, PodDefaults.SIDECAR_CONTAINER_NAME, [_program("send")], self.python) as channel:
            while channel.is_open():
                channel.update(timeout=SILENCE_S)
                while channel.peek_stdout():
                    chunk = channel.read_stdout()
                    got += len(chunk)
                    if got > most:
                        raise ExportOverLimit(
                            f"the results are more than export.limits.disk_mib, {most // MIB} MiB. Next: raise it in the model file"
                        )
                    writer.write(chunk)
            _finish(channel, "fetching the results")


@dataclass(frozen=True)
class PodHost:
    """A pod of the cluster that the model file's `export.pod` names."""

    context: Context
    pod: ExportPod
    started: Started
    made: list[ExporterPod] = field(default_factory=list)  # so that a killed task deletes it

    @property
    def fetch_python(self) -> str:
        """Airflow's own: it has the Hub's client."""
        return sys.executable

    def open_model(self, release: Release, request: Path, scratch: Path) -> Path:
        """The folder with the results, below `scratch`."""
        inputs = pack_inputs(release.served_by, request, scratch / "inputs.tar")
        results = scratch / "results.tar"
        one = ExporterPod(task_id="exporter", release=release, pod=self.pod, inputs=inputs, results=results)
        self.made.append(one)
        with _pod_errors(one, self.pod):
            _delete_leftovers(one)
            one.execute_sync(self.context)
        return unpack_folder(results, scratch / "work" / "out")

    def end(self) -> None:
        """Delete the pod."""
        for one in self.made:
            one.on_kill()


def _delete_leftovers(one: ExporterPod) -> None:
    """Delete the pods that killed tries of this model's exports left. One model has one run at a time."""
    selector = ",".join(f"{key}={value}" for key, value in one.labels.items())
    for left in one.client.list_namespaced_pod(one.namespace, label_selector=selector).items:
        log.info("export: deleting pod %s, which an earlier try left", left.metadata.name)
        one.client.delete_namespaced_pod(left.metadata.name, one.namespace, grace_period_seconds=0)


@contextmanager
def _pod_errors(one: ExporterPod, pod: ExportPod) -> Iterator[None]:
    """Raise what the provider or the API server raise as an error of ours in one line, with the exporter's own reason if it has one."""
    where = f"exporter's pod in namespace {pod.namespace} of connection {pod.conn_id}"
    try:
        yield
    except SlipwayError:
        raise
    except (ApiException, HTTPError, AirflowException) as error:
        hidden = error.__context__  # by the provider's clean-up, which raises that the pod failed
        first = hidden if isinstance(error, AirflowException) and isinstance(hidden, Exception) else error
        raise (first if isinstance(first, SlipwayError) else _explain(one, where, first)) from error


def _explain(one: ExporterPod, where: str, error: Exception) -> SlipwayError:
    if isinstance(error, HTTPError):
        return ClusterUnreachable(f"{where}: no answer: {one_line(error)}. Next: clear the task when it answers again")
    if isinstance(error, ApiException) and error.status == GONE and one.pod is not None:
        return ExportInterrupted(f"{where}: the pod {one.pod.metadata.name} is gone: somebody deleted it. {AGAIN}")
    if isinstance(error, ApiException):
        grant = "give the connection create, get, list, patch, delete of pods, get of pods/log, and get and create of pods/exec there"
        return ExportError(
            f"{where}: {error.status} {one_line(error.reason)}: {refusal_message(error.body)}. Next: {grant}"
        )
    return _failure(one, where, error)


def _failure(one: ExporterPod, where: str, error: Exception) -> ExportError:
    """Why the pod failed: a limit, the exporter's own reason, or what kept it from starting."""
    limits, remote = one.release.limits, one.remote_pod
    ended = _state_of(remote, one.base_container_name) if remote else SimpleNamespace(exit_code=None, reason=None)
    over = None
    if ended.reason == OUT_OF_MEMORY:
        over = f"it needs more memory than export.limits.memory_mib, {limits.memory_mib}"
    elif remote and remote.status.reason in OVER_LIMIT:
        over = f"{one_line(remote.status.message)} (export.limits: disk_mib {limits.disk_mib}, cpu_s {limits.cpu_s})"
    elif _is_disrupted(remote) or ended.exit_code == TERMINATED or (one.is_supplied and not ended.exit_code):
        return ExportInterrupted(f"{where}: it was ended from outside: {one_line(error)}. {AGAIN}")
    if over is None and not ended.exit_code:
        return ExportError(f"{where}: {one_line(error)}{_waits_for(remote)}. Next: check export.pod in the model file")
    return exporter_failure(
        one.release.served_by.exporter.name, ended.exit_code or 0, one.last_lines, limits, over=over
    )


def _is_disrupted(pod: k8s.V1Pod | None) -> bool:
    return pod is not None and any(each.type == DISRUPTED for each in pod.status.conditions or ())


def _waits_for(pod: k8s.V1Pod | None) -> str:
    """What a pod that did not start waits for, as its status says."""
    conditions = pod.status.conditions or () if pod else ()
    said = [f"{each.reason}: {each.message}" for each in conditions if each.status == "False" and each.message]
    return f" ({one_line(said[0])})" if said else ""


def _state_of(pod: k8s.V1Pod, name: str) -> Any:
    """How a container ended: its `exit_code` and `reason`, None if it has not."""
    for status in pod.status.container_statuses or ():
        if status.name == name and status.state.terminated:
            return status.state.terminated
    return SimpleNamespace(exit_code=None, reason=None)


@contextmanager
def _command(client: Any, pod: k8s.V1Pod, container: str, arguments: list[str], python: str) -> Iterator[Any]:
    """A Python program in a container of the pod, by `exec`; its standard input and output."""
    channel = stream(
        client.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        pod.metadata.namespace,
        container=container,
        command=[python, "-c", *arguments],
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        binary=True,
        _preload_content=False,
    )
    with closing(channel):
        try:
            yield channel
        except (WebSocketException, OSError) as error:
            raise ExportInterrupted(f"exporter's pod: the connection ended: {one_line(error)}. {AGAIN}") from error


def _finish(channel: Any, what: str) -> None:
    """Wait for the program's end. Raises ExportInterrupted if it did not succeed."""
    channel.run_forever(timeout=SILENCE_S)
    try:
        status = None if channel.is_open() else channel.returncode
    except ValueError as error:  # the kubelet's own words in place of a status
        raise ExportInterrupted(f"exporter's pod: {what} failed: {one_line(error)}. {AGAIN}") from error
    if status != 0:
        said = one_line(channel.read_stderr(timeout=0).decode(errors="replace")) or "the connection ended"
        raise ExportInterrupted(f"exporter's pod: {what} failed: {said}. {AGAIN}")


def _program(name: str) -> str:
    return (PROGRAMS / f"{name}.py").read_text()


def _folder(name: str, mib: int) -> k8s.V1Volume:
    return k8s.V1Volume(name=name, empty_dir=k8s.V1EmptyDirVolumeSource(size_limit=f"{mib}Mi"))


def _security_of_pod() -> k8s.V1PodSecurityContext:
    return k8s.V1PodSecurityContext(
        run_as_non_root=True, run_as_user=USER, run_as_group=USER, fs_group=USER,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )  # fmt: skip


def _security_of_container() -> k8s.V1SecurityContext:
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False, read_only_root_filesystem=True, capabilities=k8s.V1Capabilities(drop=["ALL"])
    )

"""The shared parts of the machine: engine, registry and cluster. They are started once, and every checkout uses them."""

import contextlib
import http.client
import json
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import settings as at
from local.builds.binary import build_binary, build_program
from local.builds.environments import environment_path
from local.errors import StandError
from local.parts import checkout, cluster, engine, leftovers, metrics
from local.programs.locks import change_lock, locked, locked_at_once, shared_lock
from local.programs.shell import run, wait_until
from local.programs.supervision import Program, Supervisor, answers, set_programs, shut_down, start, states, stop
from local.progress import step
from local.settings import Settings

LOCK_S = 10
ENGINE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The address of each shared part, and whether the stand runs it itself."""

    docker_host: str
    own_engine: bool
    registry: str
    own_registry: bool
    own_cluster: bool


def supervisor(settings: Settings) -> Supervisor:
    """The supervisor of the shared parts."""
    return Supervisor(
        mark=at.SHARED_MARK,
        run=settings.run,
        logs=settings.shared / "logs",
        config=settings.shared / "supervisor.conf",
        program=environment_path(settings, "dev") / "bin" / "supervisord",
        directory=Path("/"),
    )


def choose_parts(settings: Settings) -> Parts:
    """The user's parts that are named or running, and the stand's own for the rest."""
    docker_host = settings.docker_host or running_engine(settings)
    if settings.docker_host and not engine.engine_answers(settings.docker_host):
        raise StandError(
            f"engine {settings.docker_host} (SLIPWAY_DOCKER_HOST): no answer. Next: start it, or unset the setting"
        )
    if settings.kubeconfig and not settings.kubeconfig.exists():
        raise StandError(
            f"kubeconfig {settings.kubeconfig} (SLIPWAY_KUBECONFIG): no such file. Next: correct or unset the setting"
        )
    return Parts(
        docker_host=docker_host or settings.own_docker_host,
        own_engine=docker_host is None,
        registry=settings.registry or f"127.0.0.1:{at.REGISTRY_PORT}",
        own_registry=settings.registry is None,
        own_cluster=settings.kubeconfig is None,
    )


def running_engine(settings: Settings) -> str | None:
    """The machine's own engine, or None if it has none or the stand already runs one."""
    if engine.engine_answers(settings.own_docker_host):
        return None
    hosts = [os.environ.get("DOCKER_HOST", ""), engine.DEFAULT_HOST]
    return next((host for host in hosts if host and engine.engine_answers(host)), None)


def start_shared(settings: Settings, parts: Parts) -> Path | None:
    """Start the shared parts that do not run yet. Returns the folder of the Kubernetes binary, if the cluster is our own."""
    binary = None
    if parts.own_cluster:
        with step("Kubernetes binary") as note:
            binary = build_binary(settings, note)
    if not (parts.own_cluster or parts.own_engine or parts.own_registry):
        return None
    leftovers.save_snapshot(settings)
    _configure(settings, parts, binary)
    if parts.own_engine or parts.own_cluster:
        leftovers.allow_forwarding()
        start(supervisor(settings), "containerd")
    if parts.own_registry:
        with step("registry") as note:
            start(supervisor(settings), "registry")
            wait_until(
                lambda: registry_answers(parts.registry), seconds=ENGINE_S, what=f"registry {parts.registry}: no answer"
            )
            note(parts.registry)
    if parts.own_engine:
        with step("engine") as note:
            leftovers.make_bridge(at.DOCKER_BRIDGE, at.DOCKER_ADDRESS)
            start(supervisor(settings), "dockerd")
            wait_until(
                lambda: engine.engine_answers(parts.docker_host),
                seconds=ENGINE_S,
                what=f"engine {parts.docker_host}: no answer",
            )
            note(f"the stand's own, {parts.docker_host}")
    if binary:
        _start_cluster(settings, binary)
    return binary


def _start_cluster(settings: Settings, binary: Path) -> None:
    with step("Kubernetes") as note:
        leftovers.make_bridge(at.POD_BRIDGE, f"{at.POD_GATEWAY}/24")
        wait_until(lambda: containerd_answers(settings), seconds=ENGINE_S, what="containerd: no answer")
        cluster.import_pause_image(settings, binary)
        start(supervisor(settings), *[program.name for program in cluster.programs(settings, binary)])
        cluster.wait_ready(settings, binary)
        note(f"{at.KUBERNETES_VERSION}, one node, https://127.0.0.1:{at.API_SERVER_PORT}")
    if metrics.requested(settings):
        start_metrics(settings, binary)


def start_metrics(settings: Settings, binary: Path) -> None:
    """Build and start metrics-server: from now on the autoscalers of all checkouts scale."""
    with step("metrics-server") as note:
        build_program(settings, metrics.NAME, note)
        metrics.start_metrics(settings, supervisor(settings), cluster.kubectl_command(settings, binary))


def _configure(settings: Settings, parts: Parts, binary: Path | None) -> None:
    """Write the configurations and update the supervisor. Does nothing while a checkout uses running parts."""
    with locked_at_once(shared_lock(settings)) as free:
        if answers(supervisor(settings)) and not free:
            return
    settings.shared.mkdir(parents=True, exist_ok=True)
    (settings.shared / "containerd.toml").write_text(cluster.render_containerd(settings))
    (settings.shared / "registry.json").write_text(json.dumps(render_registry(settings)))
    (settings.shared / "dockerd.json").write_text("{}")
    if binary:
        cluster.write_configuration(settings, binary, parts.registry)
    set_programs(supervisor(settings), shared_programs(settings, binary))


def shared_programs(settings: Settings, binary: Path | None) -> list[Program]:
    """Every program of the shared supervisor. It starts only those that are needed."""
    first = [cluster.containerd_program(settings), registry_program(settings), engine_program(settings)]
    return first + ([*cluster.programs(settings, binary), metrics.program(settings)] if binary else [])


def registry_program(settings: Settings) -> Program:
    """The stand's own registry (Distribution)."""
    return Program(name="registry", command=("docker-registry", "serve", str(settings.shared / "registry.json")))


def render_registry(settings: Settings) -> dict[str, object]:
    """The registry's configuration: loopback only, blobs in the cache."""
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(settings.cache / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{at.REGISTRY_PORT}", "secret": "one registry, no shared uploads"},
    }


def engine_program(settings: Settings) -> Program:
    """The stand's own engine. It shares no folder, socket or bridge with another engine on the machine."""
    return Program(
        name="dockerd",
        command=(
            "dockerd", f"--config-file={settings.shared}/dockerd.json", f"--host={settings.own_docker_host}",
            f"--data-root={settings.cache}/docker", f"--exec-root={settings.run}/docker", f"--pidfile={settings.run}/docker.pid",
            f"--containerd={settings.containerd_socket}", f"--bridge={at.DOCKER_BRIDGE}",
            f"--default-address-pool=base={at.DOCKER_POOL},size=24", "--cgroup-parent=/slipway-docker",
        ),
        stop_wait_s=30,
    )  # fmt: skip


def registry_answers(registry: str) -> bool:
    """True if a registry responds there."""
    where = urllib.parse.urlsplit(f"//{registry}")
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=3)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in {200, 401}
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def containerd_answers(settings: Settings) -> bool:
    """True if the stand's own containerd responds."""
    try:
        run(["ctr", "--address", settings.containerd_socket, "version"], timeout_s=5)
    except StandError:
        return False
    return True


def stop_shared(settings: Settings) -> None:
    """Stop all shared parts and restore the machine. The caller holds the shared lock exclusively."""
    ours = supervisor(settings)
    if answers(ours):
        _stop_in_order(settings, ours)
    shut_down(ours)
    leftovers.remove_leftovers(settings)


def _stop_in_order(settings: Settings, ours: Supervisor) -> None:
    """Stop what starts containers first, then remove the containers, then stop containerd."""
    kubernetes = ("kube-proxy", "kubelet", "scheduler", "controller-manager", "api-server", "etcd")
    stop(ours, metrics.NAME, *kubernetes, "registry", "dockerd")
    if states(ours).get("containerd") == "RUNNING" and containerd_answers(settings):
        for namespace in ("k8s.io", "moby"):
            _remove_containers(settings, namespace)
    stop(ours, "containerd")


def _remove_containers(settings: Settings, namespace: str) -> None:
    ctr = ["ctr", "--address", str(settings.containerd_socket), "-n", namespace]
    for task in run([*ctr, "tasks", "ls", "-q"]).split():
        _try([*ctr, "tasks", "rm", "--force", task])
    for container in run([*ctr, "containers", "ls", "-q"]).split():
        _try([*ctr, "containers", "rm", container])


def _try(command: list[str]) -> None:
    """Run one step of the clean-up. If it fails, a later and more forceful step does the same."""
    try:
        run(command, timeout_s=20)
    except StandError:
        return


@contextlib.contextmanager
def held_alone(settings: Settings) -> Iterator[None]:
    """Hold the shared parts exclusively while the block stops or breaks one. Raises StandError while another checkout runs."""
    with locked(change_lock(settings)):
        stop(checkout.supervisor(settings), "lock")
        try:
            with locked_at_once(shared_lock(settings)) as free:
                if not free:
                    raise StandError(
                        "shared parts: another checkout uses them. Next: python3 -m local down there, then again"
                    )
                yield
        finally:
            use_shared(settings)


def use_shared(settings: Settings) -> None:
    """Mark that this checkout uses the shared parts. Once this returns, no other checkout stops them."""

    def is_held() -> bool:
        with locked_at_once(shared_lock(settings)) as free:
            return not free

    start(checkout.supervisor(settings), "lock")
    wait_until(is_held, seconds=LOCK_S, what=f"{shared_lock(settings)}: not held")

"""`up`: start every part of the stand that does not run yet, step by step."""

import json
import os
import shutil
import time
from pathlib import Path

from local.builds.environments import build_environment, environment_path
from local.builds.packages import install, plan_packages
from local.errors import StandError
from local.parts import access, airflow, checkout, cluster, google, hosts, metrics, onnx_image, serving_image, shared
from local.parts.airflow import AirflowInputs
from local.parts.checkout import Slot, write_private
from local.parts.serving_image import ServingImage
from local.parts.shared import Parts
from local.programs.locks import change_lock, command_lock, locked
from local.programs.shell import run
from local.programs.supervision import set_programs, start
from local.progress import say, step
from local.settings import Settings


def bring_up(
    settings: Settings, *, with_gke: bool = False, with_metrics: bool = False, with_onnx: bool = False
) -> None:
    """Start what does not run yet. It can be repeated, also after an `up` that was killed. The flags hold until `down`."""
    if os.geteuid() != 0:
        raise StandError(
            "the stand starts an engine and a cluster, which needs root. Next: sudo -E python3 -m local up"
        )
    if with_metrics and settings.kubeconfig:
        raise StandError("--metrics: SLIPWAY_KUBECONFIG names your own cluster. Next: install metrics-server there")
    began_s = time.monotonic()
    say(f"stand of {settings.checkout}, cache {settings.cache}")
    with locked(command_lock(settings)):
        with locked(change_lock(settings)):
            parts, slot = _prepare(settings)
            if with_gke:
                google.folder(settings).mkdir(mode=0o700, exist_ok=True)
            if with_metrics:
                metrics.request(settings)
            if with_onnx:
                onnx_image.request(settings)
            if google.emulated(settings):
                hosts.add_names(google.HOSTS)
            shared.start_shared(settings, parts)
            _set_programs(settings, parts, slot, script="")
            shared.use_shared(settings)  # from here on no other checkout can stop the shared parts
        _bring_up_checkout(settings, parts, slot)
    say(f"the stand is up after {time.monotonic() - began_s:.0f} s. Next: python3 -m local status")


def _prepare(settings: Settings) -> tuple[Parts, Slot]:
    parts = shared.choose_parts(settings)
    with step("Debian packages") as note:
        install(
            plan_packages(own_engine=parts.own_engine, own_cluster=parts.own_cluster, own_registry=parts.own_registry),
            note,
        )
    with step("dev environment") as note:
        note(str(build_environment(settings, "dev")))
    return parts, checkout.claim_slot(settings)


def _set_programs(settings: Settings, parts: Parts, slot: Slot, *, script: str) -> None:
    """Configure the checkout's supervisor. An empty `script` means the script of the last `up`."""
    known = airflow.environment_file(settings)
    text = script or (known.read_text() if known.exists() else "")
    set_programs(
        checkout.supervisor(settings), airflow.programs(settings, slot, own_cluster=parts.own_cluster, script=text)
    )


def _bring_up_checkout(settings: Settings, parts: Parts, slot: Slot) -> None:
    with step("namespace") as note:
        _make_namespace(settings)
        if parts.own_cluster:
            access.give_access(settings, _admin_kubectl(settings))
            start(checkout.supervisor(settings), "load-balancer")
        note(f"{settings.namespace}, addresses {slot.address_prefix}.0/24")
    if google.requested(settings):
        with step("GKE") as note:
            note(_connect_google(settings, slot))
    _write_facts(settings, parts, slot, serving_image.UNKNOWN)
    image = serving_image.provide(settings, parts)
    _write_facts(settings, parts, slot, image)
    if google.emulated(settings):
        google.share_layers(settings, image.reference)
    if onnx_image.requested(settings):
        onnx = onnx_image.provide(settings, parts)
        if google.emulated(settings):
            google.share_layers(settings, onnx)
        with step("ONNX environment") as note:
            note(str(build_environment(settings, "onnx")))
    with step("model environment") as note:
        note(str(build_environment(settings, "model")))
    with step("load environment") as note:
        note(str(build_environment(settings, "load")))
    _start_airflow(settings, parts, slot, image)


def _connect_google(settings: Settings, slot: Slot) -> str:
    if settings.google:
        return f"Google's, project {settings.google.project}: what runs create there is billed"
    return google.start_emulator(settings, slot, _admin_kubectl(settings))


def _admin_kubectl(settings: Settings) -> list[str | Path]:
    kubectl = environment_path(settings, "dev") / "bin" / "kubectl"
    return [kubectl, "--kubeconfig", settings.kubeconfig or settings.admin_kubeconfig]


def _start_airflow(settings: Settings, parts: Parts, slot: Slot, image: ServingImage) -> None:
    inputs = AirflowInputs(
        kubeconfig=_kubeconfig_of_airflow(settings, parts),
        namespace=settings.namespace,
        docker_host=parts.docker_host,
        registry=f"{parts.registry}/{settings.namespace}",
        serving_image=image.reference if image.stand_in or settings.serving_image else None,
        onnx_serving_image=onnx_image.reference(settings, parts),
        exporter_python=exporter_python(settings),
        onnx_exporter_python=exporter_python(settings, "onnx"),
        load_python=environment_path(settings, "load") / "bin" / "python",
    )
    script = airflow.write_launcher(settings, airflow.render_environment(settings, slot, inputs))
    _set_programs(settings, parts, slot, script=script)
    with step("Airflow's database"):
        airflow.start_database(settings)
        airflow.migrate_database(settings)
    with step("Airflow") as note:
        start(checkout.supervisor(settings), *airflow.COMPONENTS)
        airflow.wait_healthy(slot)
        note(f"http://127.0.0.1:{slot.airflow_port}")


def _make_namespace(settings: Settings) -> None:
    """Create the checkout's namespace, and a kubeconfig with this namespace as its default."""
    kubectl = _admin_kubectl(settings)
    namespace = json.dumps(cluster.render_namespace(settings.namespace, settings.checkout))
    run(
        [*kubectl, "apply", "--server-side", "--field-manager=slipway-stand", "-f", "-"],
        stdin=namespace,
        timeout_s=60,
    )
    partial = settings.home / "kubeconfig.partial"
    partial.touch(mode=0o600)
    shutil.copyfile(kubectl[-1], partial)
    run([*kubectl[:-1], partial, "config", "set-context", "--current", f"--namespace={settings.namespace}"])
    partial.rename(settings.home_kubeconfig)


def _kubeconfig_of_airflow(settings: Settings, parts: Parts) -> Path:
    """Airflow's own account in the stand's cluster. In the user's cluster it has the rights that SLIPWAY_KUBECONFIG gives."""
    return settings.airflow_kubeconfig if parts.own_cluster else settings.home_kubeconfig


def exporter_python(settings: Settings, environment: str = "model") -> Path:
    """The interpreter of an exporter's environment."""
    return environment_path(settings, environment) / "bin" / "python"


def _write_facts(settings: Settings, parts: Parts, slot: Slot, image: ServingImage) -> None:
    """Write what `status` reads."""
    with_onnx = onnx_image.requested(settings)
    facts = {
        "kubeconfig": str(settings.home_kubeconfig),
        "namespace": settings.namespace,
        "registry": f"{parts.registry}/{settings.namespace}",
        "docker_host": parts.docker_host,
        "airflow": {
            "url": f"http://127.0.0.1:{slot.airflow_port}",
            "kubeconfig": str(_kubeconfig_of_airflow(settings, parts)),
            "user": airflow.ADMIN,
            "password_file": str(checkout.password_file(settings)),
            "environment_file": str(airflow.environment_file(settings)),
        },
        "serving_image": image.reference,
        "onnx_serving_image": onnx_image.reference(settings, parts) if with_onnx else None,
        "stand_ins": [image.stand_in] if image.stand_in else [],
        "store": airflow.store_uri(settings),
        "exporter_python": str(exporter_python(settings)),
        "gke": google.facts(settings, slot),
    }
    write_private(settings.facts, json.dumps(facts, indent=1))

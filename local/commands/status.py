"""`status`, `look` and `doctor`: where each part of the stand is and whether it works."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.builds.environments import environment_path
from local.errors import StandError
from local.parts import airflow, checkout, engine, shared
from local.parts.leftovers import find_leftovers
from local.programs.shell import run
from local.programs.supervision import RUNNING, answers, states
from local.settings import Settings

GOLDEN = re.compile(r"\bimage: ([\w./-]+\.png)")  # of a model file
NOT_UP = "the stand of this checkout is not up. Next: python3 -m local up"


def read_status(settings: Settings) -> dict[str, Any]:
    """The facts that `up` wrote, with the addresses of the served models. Raises StandError if the stand is not up."""
    if not settings.facts.exists():
        raise StandError(NOT_UP)
    facts: dict[str, Any] = json.loads(settings.facts.read_text())
    return {**facts, "endpoints": render_endpoints(list_services(settings, facts))}


def list_services(settings: Settings, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The Services of models in the checkout's namespace; none if the cluster does not respond."""
    kubectl = environment_path(settings, "dev") / "bin" / "kubectl"
    command = [
        kubectl,
        "--kubeconfig",
        facts["kubeconfig"],
        "-n",
        facts["namespace"],
        "get",
        "services",
        "-l",
        "slipway/model",
    ]
    try:
        items: list[dict[str, Any]] = json.loads(run([*command, "-o", "json", "--request-timeout=5s"], timeout_s=20))[
            "items"
        ]
    except StandError:
        return []
    return items


def render_endpoints(services: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The REST and gRPC address of each model whose Service has an address."""
    endpoints = {}
    for service in services:
        ingress = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
        if ingress:
            host = ingress[0].get("ip") or ingress[0].get("hostname")
            ports = {port.get("name", ""): port["port"] for port in service["spec"]["ports"]}
            endpoints[service["metadata"]["labels"]["slipway/model"]] = {
                "rest": f"http://{host}:{ports.get('tf-serving-restapi', 8501)}",
                "grpc": f"{host}:{ports.get('tf-serving-grpc', 8500)}",
            }
    return endpoints


def render_table(status: Mapping[str, Any]) -> str:
    """The status as a table for people."""
    rows = [
        (
            "Airflow",
            f"{status['airflow']['url']}  user {status['airflow']['user']}, password in {status['airflow']['password_file']}",
        ),
        ("cluster", f"{status['kubeconfig']}  namespace {status['namespace']}"),
        ("registry", status["registry"]),
        ("engine", status["docker_host"]),
        ("serving image", status["serving_image"]),
        ("artifact store", status["store"]),
        ("exporter", status["exporter_python"]),
    ]
    if onnx := status.get("onnx_serving_image"):
        rows.append(("ONNX server", onnx))
    rows += [
        (f"model {name}", f"{where['rest']}  grpc {where['grpc']}")
        for name, where in sorted(status["endpoints"].items())
    ]
    if status.get("gke"):
        rows.append(("GKE", _describe_google(status["gke"])))
    rows += [("STAND-IN", text) for text in status["stand_ins"]]
    return "\n".join(f"{name:<16} {text}" for name, text in rows)


def _describe_google(gke: Mapping[str, Any]) -> str:
    if not gke["emulator"]:
        return f"Google's, project {gke['project']}"
    return f"an emulator of Google, container.{gke['universe']}, control {gke['control']}"


def render_look(status: Mapping[str, Any], model: str, checkout_folder: Path) -> str:
    """Where to see a served model: Airflow's page with the login, and a request to paste into a shell."""
    airflow_at, where = status["airflow"], status["endpoints"].get(model)
    dag = f"refresh_{model.replace('-', '_')}"
    lines = [
        f"Airflow   {airflow_at['url']}/dags/{dag}",
        f"          user {airflow_at['user']}, password $(cat {airflow_at['password_file']})",
    ]
    if where is None:
        return "\n".join([*lines, f"{model}   has no address. Next: make refresh MODEL={model}"])
    served = checkout_folder / "include" / "served"
    images = [served / found for found in GOLDEN.findall((served / f"{model}.yaml").read_text())]
    lines += [f"{model}  {where['rest']}/v1/models/{model}  grpc {where['grpc']}"]
    if images:
        body = f"""printf '{{"instances":["%s"]}}' "$(base64 -w0 {images[0]} | tr '+/' '-_')" """
        lines += ["try it    " + body + f"| curl -s -d @- {where['rest']}/v1/models/{model}:predict"]
    lines += [f"STAND-IN  {text}" for text in status["stand_ins"]]
    return "\n".join(lines)


def diagnose(settings: Settings) -> list[tuple[str, str | None]]:
    """Each part with its problem, or None if it works. A problem ends with the next command."""
    try:
        status = read_status(settings)
    except StandError as absent:
        return [("stand", str(absent)), *_leftover_rows(settings)]
    slot = checkout.read_slot(settings)
    return [
        (
            "engine",
            _unless(
                engine.engine_answers(status["docker_host"]),
                f"{status['docker_host']} does not respond. Next: python3 -m local up",
            ),
        ),
        (
            "registry",
            _unless(
                shared.registry_answers(status["registry"].split("/")[0]), "does not respond. Next: python3 -m local up"
            ),
        ),
        ("cluster", _cluster_trouble(settings, status)),
        *[(name, trouble) for name, trouble in _program_troubles(settings)],
        ("Airflow", _airflow_trouble(settings, slot)),
        *[("stand-in", text) for text in status["stand_ins"]],
    ]


def _leftover_rows(settings: Settings) -> list[tuple[str, str | None]]:
    """What the stand left on the machine because it was not stopped properly; nothing while shared parts run."""
    if answers(shared.supervisor(settings)):
        return []
    return [("leftover", f"{line}. Next: python3 -m local down") for line in find_leftovers(settings)]


def _unless(works: bool, trouble: str) -> str | None:  # noqa: FBT001  # reads as a sentence where it is used
    return None if works else trouble


def _cluster_trouble(settings: Settings, status: Mapping[str, Any]) -> str | None:
    kubectl = environment_path(settings, "dev") / "bin" / "kubectl"
    try:
        run(
            [
                kubectl,
                "--kubeconfig",
                status["kubeconfig"],
                "get",
                "namespace",
                status["namespace"],
                "--request-timeout=5s",
            ],
            timeout_s=20,
        )
    except StandError as trouble:
        return f"{trouble}\n    Next: python3 -m local up; logs in {settings.shared}/logs"
    return None


def _program_troubles(settings: Settings) -> list[tuple[str, str | None]]:
    rows: list[tuple[str, str | None]] = []
    for supervisor in (shared.supervisor(settings), checkout.supervisor(settings)):
        for name, state in states(supervisor).items():
            log = supervisor.log(name)
            if state != "STOPPED":
                rows.append((name, _unless(state == RUNNING, f"{state}. Next: tail {log}")))
    return rows


def _airflow_trouble(settings: Settings, slot: checkout.Slot | None) -> str | None:
    unhealthy = airflow.unhealthy(slot) if slot else ["slot"]
    return _unless(
        not unhealthy, f"{', '.join(unhealthy)} not healthy. Next: tail {settings.home}/logs/*.log; python3 -m local up"
    )

"""The account of the stand's Airflow in the stand's own cluster: the rights that docs/eks.md lists, and no others."""

import json
from pathlib import Path
from typing import Any

from local.parts.checkout import write_private
from local.programs.shell import run
from local.settings import Settings

ACCOUNT = "airflow"
RBAC = "rbac.authorization.k8s.io"
RULES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", ("configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"), ("get", "create", "patch", "delete")),
    ("apps", ("deployments",), ("get", "create", "patch", "delete")),
    ("autoscaling", ("horizontalpodautoscalers",), ("get", "create", "patch", "delete")),
    ("networking.k8s.io", ("networkpolicies",), ("get", "create", "patch", "delete")),
    ("policy", ("poddisruptionbudgets",), ("get", "create", "patch", "delete")),
    ("", ("events", "pods"), ("list",)),
    ("apps", ("replicasets",), ("list",)),
    ("", ("pods/log",), ("get",)),
    ("", ("services/proxy",), ("create",)),
    ("", ("pods/proxy",), ("get",)),
    ("", ("pods/portforward",), ("get", "create")),
    ("coordination.k8s.io", ("leases",), ("get", "create", "update", "delete")),
    ("metrics.k8s.io", ("pods",), ("list",)),  # what a sweep's pods use, if metrics-server runs
)  # fmt: skip
"""API group, resources and verbs in the checkout's namespace. The tests' overlays contain no other kinds."""
CLUSTER_RULES: tuple[dict[str, list[str]], ...] = (
    {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
)


def _render_role(namespace: str) -> dict[str, Any]:
    """The Role with what a run uses in its namespace."""
    rules = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)} for group, resources, verbs in RULES
    ]
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": ACCOUNT, "namespace": namespace},
        "rules": rules,
    }


def render_access(namespace: str) -> dict[str, Any]:
    """The ServiceAccount, its Role, and the two rights outside its namespace, as a List."""
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]
    kinds = {"Role": {"name": ACCOUNT, "namespace": namespace}, "ClusterRole": {"name": namespace}}
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": kinds["Role"]},
        _render_role(namespace),
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": kinds["ClusterRole"],
            "rules": list(CLUSTER_RULES),
        },
    ]
    for kind, metadata in kinds.items():
        role = {"apiGroup": RBAC, "kind": kind, "name": metadata["name"]}
        items.append(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": role,
                "subjects": subjects,
            }
        )
    return {"apiVersion": "v1", "kind": "List", "items": items}


def give_access(settings: Settings, kubectl: list[str | Path]) -> None:
    """Create the account and write its kubeconfig. `kubectl` has full rights."""
    run(
        [*kubectl, "apply", "--server-side", "--field-manager=slipway-stand", "-f", "-"],
        stdin=json.dumps(render_access(settings.namespace)),
        timeout_s=60,
    )
    if settings.airflow_kubeconfig.exists():
        return
    token = run(
        [*kubectl, "create", "token", ACCOUNT, "--duration=87600h", f"--namespace={settings.namespace}"], timeout_s=60
    )
    view = [kubectl[0], "--kubeconfig", settings.home_kubeconfig, "config", "view", "--raw", "-o", "json"]
    config = json.loads(run(view))
    config["users"] = [{"name": user["name"], "user": {"token": token.strip()}} for user in config["users"]]
    write_private(settings.airflow_kubeconfig, json.dumps(config, indent=1))


def remove_access(kubectl: list[str | Path], namespace: str) -> None:
    """Delete the rights outside the namespace. The others go with the namespace."""
    run([*kubectl, "delete", "clusterrolebinding,clusterrole", namespace, "--ignore-not-found"], timeout_s=30)

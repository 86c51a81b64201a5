"""What an overlay may contain: kinds of a list, all in the namespace, and pods that get no power over the node or the cluster.

Pods meet Kubernetes' Pod Security Standard `restricted`. What it leaves open: every image is named by its digest, and no pod
has a token of the API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slipway.errors import ManifestError
from slipway.facts import JsonObject
from slipway.kubernetes.manifests import Manifest, manifest_name

# As Kind.group, those of the core API as Kind. docs/overlays.md has the same list.
KINDS = frozenset({
    "ConfigMap", "LimitRange", "PersistentVolumeClaim", "ResourceQuota", "Secret", "Service", "ServiceAccount",
    "Deployment.apps", "HorizontalPodAutoscaler.autoscaling", "PodDisruptionBudget.policy",
    "Ingress.networking.k8s.io", "NetworkPolicy.networking.k8s.io",
    "HTTPRoute.gateway.networking.k8s.io", "GRPCRoute.gateway.networking.k8s.io",
    "PodMonitor.monitoring.coreos.com", "ServiceMonitor.monitoring.coreos.com", "PodMonitoring.monitoring.googleapis.com",
    "BackendConfig.cloud.google.com", "FrontendConfig.networking.gke.io", "ManagedCertificate.networking.gke.io",
    "GCPBackendPolicy.networking.gke.io", "HealthCheckPolicy.networking.gke.io",
})  # fmt: skip
# What no Variable adds: rights, and kinds that are not of one namespace.
NEVER_GROUPS = frozenset({
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io",
    "flowcontrol.apiserver.k8s.io", "node.k8s.io", "rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io",
})  # fmt: skip
NEVER = frozenset({
    "ComponentStatus", "Namespace", "Node", "PersistentVolume", "DeviceClass.resource.k8s.io", "ResourceSlice.resource.k8s.io",
    "IngressClass.networking.k8s.io", "IPAddress.networking.k8s.io", "ServiceCIDR.networking.k8s.io",
    "GatewayClass.gateway.networking.k8s.io",
})  # fmt: skip
TOKEN_SECRET = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secret
DEFAULT_ACCOUNT = "default"
ACCOUNT_FIELDS = ("serviceAccountName", "serviceAccount")  # the second is the first one's old name

# Pod Security Standard `restricted`; docs/overlays.md says the same in words.
HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
VOLUMES = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip
PROJECTED = frozenset({"configMap", "downwardAPI", "secret"})  # the others are tokens and certificates
NEVER_SET = ("privileged", "procMount", "seLinuxOptions", "sysctls", "windowsOptions")
CONFINED = frozenset({"RuntimeDefault", "Localhost"})
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"  # the annotation that came before appArmorProfile
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
SHOWN = 100  # characters of a text of the overlay in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What this Airflow's Variables add to the rules."""

    kinds: frozenset[str] = frozenset()  # as in KINDS
    service_accounts: frozenset[str] = frozenset()


def check_policy(objects: list[Manifest], allowed: Allowed) -> None:
    """Refuse an object that an overlay may not contain. Raises ManifestError with object, field and what to do."""
    for manifest in objects:
        for said in _problems(manifest, allowed):
            raise ManifestError(said)


def full_kind(manifest: Manifest) -> str:
    """An object's kind with its group: `Deployment.apps`; without one for the core API: `Service`."""
    group = str(manifest["apiVersion"]).rpartition("/")[0]
    return f"{manifest['kind']}.{group}" if group else str(manifest["kind"])


def _problems(manifest: Manifest, allowed: Allowed) -> Iterator[str]:
    kind, name = full_kind(manifest), str(manifest["metadata"]["name"])
    where = f"{kind} {name[:SHOWN]}"
    if not OBJECT_NAME.fullmatch(name):
        yield f"{where}: metadata.name is not a valid name. Next: use lower-case letters, digits, '-' and '.'"
    if kind in NEVER or kind.partition(".")[2] in NEVER_GROUPS:
        yield (
            f"{where}: gives rights or is not of one namespace, so no overlay may contain it. "
            "Next: remove it; if it is needed, create it outside of Slipway"
        )
    if kind not in KINDS | allowed.kinds:
        yield (
            f"{where}: is not a kind that an overlay may contain. "
            f"Next: remove it, or add {kind} to the Variable slipway_overlay_kinds (docs/overlays.md lists the kinds)"
        )
    where = manifest_name(manifest)
    if kind == "Secret" and manifest.get("type") == TOKEN_SECRET:
        yield f"{where}: type is {TOKEN_SECRET}: the cluster would put a token into it. Next: remove it"
    if kind == "Service" and _mapping(manifest.get("spec")).get("externalIPs"):
        yield f"{where}: spec.externalIPs is set: the cluster's traffic to these addresses would go to it. Next: remove it"
    if kind == "ServiceAccount" and name not in allowed.service_accounts:
        yield f"{where}: {_other_account(name)}"
    for place, pod, notes in _pods(manifest):
        for said in _pod_problems(pod, notes, allowed):
            yield f"{where}: {place}.{said}"


def _other_account(name: Any) -> str:
    return (
        f"{str(name)[:SHOWN]} is not a ServiceAccount that an overlay may use. "
        "Next: remove it, or add its name to the Variable slipway_overlay_service_accounts"
    )


def _pods(value: Any, place: str = "", metadata: Any = None) -> Iterator[tuple[str, JsonObject, JsonObject]]:
    """Every mapping with containers in an object: its path, itself, and the annotations next to it."""
    if isinstance(value, dict):
        if any(isinstance(value.get(name), list) for name in CONTAINER_LISTS):
            yield place, value, _mapping(_mapping(metadata).get("annotations"))
        for name, inner in value.items():
            yield from _pods(inner, f"{place}.{name}" if place else str(name), value.get("metadata"))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _pods(inner, f"{place}[{number}]")


def _pod_problems(pod: JsonObject, notes: JsonObject, allowed: Allowed) -> Iterator[str]:
    yield from (f"{name} is set. Next: remove it" for name in HOST_NAMESPACES if pod.get(name))
    for name in ACCOUNT_FIELDS:
        if pod.get(name) not in (None, "", DEFAULT_ACCOUNT, *allowed.service_accounts):
            yield f"{name}: {_other_account(pod[name])}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false. Next: set it to false; a pod gets no token of the API server"
    for name, profile in notes.items():
        if str(name).startswith(APPARMOR) and not str(profile).startswith(("runtime/default", "localhost/")):
            yield f"metadata.annotations turn AppArmor off ({name}). Next: remove the annotation"
    yield from _volume_problems(_mappings(pod.get("volumes")))
    context = _mapping(pod.get("securityContext"))
    yield from (f"securityContext.{said}" for said in _context_problems(context))
    for kind in CONTAINER_LISTS:
        for number, container in enumerate(_mappings(pod.get(kind))):
            place = f"{kind}[{container.get('name', number)}]"
            yield from (f"{place}.{said}" for said in _container_problems(container, context))


def _volume_problems(volumes: list[JsonObject]) -> Iterator[str]:
    for number, volume in enumerate(volumes):
        place = f"volumes[{volume.get('name', number)}]"
        for kind in sorted(volume.keys() - {"name"} - VOLUMES):
            yield f"{place} is of kind {kind}. Next: use one of {', '.join(sorted(VOLUMES))}"
        for source in _mappings(_mapping(volume.get("projected")).get("sources")):
            for kind in sorted(source.keys() - PROJECTED):
                yield f"{place} has a source {kind}. Next: use only {', '.join(sorted(PROJECTED))}"


def _context_problems(context: JsonObject) -> Iterator[str]:
    """What a security context says that no pod and no container may say."""
    yield from (f"{name} is set. Next: remove it" for name in NEVER_SET if context.get(name))
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0. Next: use another user than root"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false. Next: remove it"
    for name in ("seccompProfile", "appArmorProfile"):
        if context.get(name) is not None and _mapping(context[name]).get("type") not in CONFINED:
            yield f"{name}.type is none of {', '.join(sorted(CONFINED))}. Next: remove it"


def _container_problems(container: JsonObject, of_pod: JsonObject) -> Iterator[str]:
    if not DIGEST.fullmatch(str(container.get("image"))):
        yield f"image {str(container.get('image'))[:SHOWN]} has no digest. Next: name it as NAME@sha256:…"
    context = _mapping(container.get("securityContext"))
    yield from (f"securityContext.{said}" for said in _context_problems(context))
    if True not in (context.get("runAsNonRoot"), of_pod.get("runAsNonRoot")):
        yield "securityContext.runAsNonRoot is not true, nor is the pod's. Next: set it to true"
    if context.get("seccompProfile") is None and of_pod.get("seccompProfile") is None:
        yield "securityContext.seccompProfile is not set, nor is the pod's. Next: set its type to RuntimeDefault"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "securityContext.allowPrivilegeEscalation is not false. Next: set it to false"
    capabilities = _mapping(context.get("capabilities"))
    if "ALL" not in _texts(capabilities.get("drop")) or set(_texts(capabilities.get("add"))) - {"NET_BIND_SERVICE"}:
        yield "securityContext.capabilities: drop lacks ALL, or add has more than NET_BIND_SERVICE. Next: set drop to [ALL], and remove add"
    if any(port.get("hostPort") for port in _mappings(container.get("ports"))):
        yield "ports: hostPort is set. Next: remove it; the Service reaches the container's port"
    lifecycle = _mapping(container.get("lifecycle"))
    for name, handler in [*((probe, container.get(probe)) for probe in PROBES), *lifecycle.items()]:
        for kind in ("httpGet", "tcpSocket"):
            if _mapping(_mapping(handler).get(kind)).get("host"):
                yield f"{name}: {kind}.host is set: the node would send requests there. Next: remove it"


def _mapping(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[JsonObject]:
    """The items of a list; an item that is no mapping is an empty one, which no rule accepts as a container."""
    return [_mapping(item) for item in value] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []

"""What an overlay may contain."""

import re
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rendering import rendered

from slipway.errors import ManifestError
from slipway.kubernetes.policy import KINDS, NEVER, NEVER_GROUPS, Allowed, check_policy, full_kind
from slipway.model.served import overlay_names
from slipway.steps.rendering import render_release

PAGE = Path(__file__).parents[3] / "docs" / "overlays.md"
DIGEST = f"sha256:{'b' * 64}"
NOTHING = Allowed()
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SIDECAR = {"name": "proxy", "image": f"proxy@{DIGEST}", "securityContext": SAFE}
PODS = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "mine"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "shop"}],
}


def pod_patch(**spec):
    """A strategic merge patch of the server's pods."""
    return {**PODS, "spec": {"template": {"spec": spec}}}


ATTACKS = {
    "hostNetwork": (pod_patch(hostNetwork=True), "deployment/tfs-server: spec.template.spec.hostNetwork is set."),
    "another ServiceAccount": (
        pod_patch(serviceAccountName="admin"),
        "deployment/tfs-server: spec.template.spec.serviceAccountName: admin is not a ServiceAccount that an overlay may use.",
    ),
    "a privileged init container by tag": (
        pod_patch(initContainers=[{"name": "i", "image": "busybox:1", "securityContext": {"privileged": True}}]),
        "deployment/tfs-server: spec.template.spec.initContainers[i].image busybox:1 has no digest.",
    ),
    "a mounted token": (
        pod_patch(automountServiceAccountToken=True),
        "deployment/tfs-server: spec.template.spec.automountServiceAccountToken is not false.",
    ),
}


@pytest.mark.parametrize(("patch", "said"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_before_anything_is_built(release, overlay, store, patch, said):
    """`resolve` refuses it in one line, and stores nothing."""
    overlay(patch)
    with pytest.raises(ManifestError) as refused:
        render_release(replace(release, overlay="mine"))
    assert str(refused.value).startswith(said)
    assert "Next: " in str(refused.value)
    assert not store.exists("rendered")


def test_rights_in_the_cluster_are_refused_before_anything_is_built(release, overlay):
    """An overlay cannot bind a role, in its namespace or in all."""
    place = overlay(resources=["../../base", "binding.yaml"])
    (place / "binding.yaml").write_text(yaml.safe_dump(BINDING))
    with pytest.raises(
        ManifestError, match=r"^ClusterRoleBinding\.rbac\.authorization\.k8s\.io mine: gives rights .*Next: "
    ):
        render_release(replace(release, overlay="mine"))


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_every_shipped_overlay_is_accepted(release, overlay_name):
    """The rules are those that the base keeps."""
    check_policy(list(rendered(replace(release, overlay=overlay_name)).values()), NOTHING)


def refusal_of(manifest, allowed=NOTHING):
    """The line that refuses an object."""
    with pytest.raises(ManifestError) as refused:
        check_policy([manifest], allowed)
    assert str(refused.value).isprintable()
    assert re.search(r"\. Next: \S", str(refused.value))
    return str(refused.value)


def an_object(kind, name="mine", **fields):
    """An object of a kind, given with its group."""
    kind, _, group = kind.partition(".")
    return {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": {"name": name}, **fields}


@pytest.mark.parametrize("kind", sorted(KINDS - {"ServiceAccount"}))
def test_a_kind_of_the_list_is_accepted(kind):
    """The group counts: the same kind of another group is another kind."""
    check_policy([an_object(kind)], NOTHING)
    stranger = an_object(f"{kind.partition('.')[0]}.example.com")
    assert f"{full_kind(stranger)} mine: is not a kind that an overlay may contain" in refusal_of(stranger)


@pytest.mark.parametrize(
    "kind", ["Pod", "Job.batch", "StatefulSet.apps", "List", "Rollout.argoproj.io", "Lease.coordination.k8s.io"]
)
def test_a_variable_adds_a_kind(kind):
    """The error names the Variable and what to add to it."""
    assert f"add {kind} to the Variable slipway_overlay_kinds" in refusal_of(an_object(kind))
    check_policy([an_object(kind)], Allowed(kinds=frozenset({kind})))


@pytest.mark.parametrize("kind", sorted(NEVER | {f"Anything.{group}" for group in NEVER_GROUPS}))
def test_no_variable_adds_rights_or_a_kind_of_the_whole_cluster(kind):
    """They are refused even if the Variable names them."""
    said = refusal_of(an_object(kind), Allowed(kinds=frozenset({kind})))
    assert said.startswith(f"{kind} mine: gives rights or is not of one namespace, so no overlay may contain it. ")


def test_the_page_has_the_list():
    """docs/overlays.md names the kinds of the list, and no others."""
    part = PAGE.read_text().split("<!-- kinds -->")[1].split("<!-- end of kinds -->")[0]
    assert set(re.findall(r"`([A-Z][\w.]+)`", part)) == KINDS


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "$PATH", "Größe", "a" * 254, ""])
def test_a_name_is_one_that_kubernetes_takes(name):
    """Later messages and commands name the object."""
    said = refusal_of(an_object("ConfigMap", name=name))
    assert "metadata.name is not a valid name" in said
    assert len(said) < 300


def test_a_service_takes_no_traffic_of_other_addresses():
    """Every pod's and node's traffic to an external IP goes to the Service that names it (CVE-2020-8554)."""
    check_policy([an_object("Service", spec={"type": "LoadBalancer"})], NOTHING)
    said = refusal_of(an_object("Service", spec={"externalIPs": ["203.0.113.7"]}))
    assert "service/mine: spec.externalIPs is set" in said


def test_a_secret_that_the_cluster_fills_with_a_token_is_refused():
    """A pod could mount it; other Secrets are accepted."""
    check_policy([an_object("Secret", type="Opaque")], NOTHING)
    assert "secret/mine: type is kubernetes.io/service-account-token" in refusal_of(
        an_object("Secret", type="kubernetes.io/service-account-token")
    )


def test_a_variable_adds_a_service_account(release):
    """Both the object and the pods that use it; `default` is every pod's."""
    account, objects = an_object("ServiceAccount", name="reader"), rendered(release)
    for field in ("serviceAccountName", "serviceAccount"):
        pod = deepcopy(objects["Deployment"])
        pod["spec"]["template"]["spec"][field] = "reader"
        for manifest in (account, pod):
            assert "reader is not a ServiceAccount that an overlay may use" in refusal_of(manifest)
            check_policy([manifest], Allowed(service_accounts=frozenset({"reader"})))
        pod["spec"]["template"]["spec"][field] = "default"
        check_policy([pod], NOTHING)


def container(**fields):
    """A change of the pods: one more container, with these fields."""
    return lambda pod: pod["containers"].append({**SIDECAR, **fields})


def context(**fields):
    """A change of the pods: one more container, whose security context has these fields."""
    return container(securityContext={**SAFE, **fields})


def field(**fields):
    """A change of the pods' own fields."""
    return lambda pod: pod.update(fields)


def volume(**fields):
    """A change of the pods: one more volume."""
    return lambda pod: pod["volumes"].append({"name": "v", **fields})


def token_source():
    """A projected volume with a token."""
    return volume(projected={"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "token"}}]})


REFUSED = {
    "hostPID": (field(hostPID=True), "hostPID is set"),
    "hostIPC": (field(hostIPC=True), "hostIPC is set"),
    "token by default": (lambda pod: pod.pop("automountServiceAccountToken"), "automountServiceAccountToken is not false"),
    "projected token": (token_source(), "volumes[v] has a source serviceAccountToken"),
    "projected certificate": (volume(projected={"sources": [{"podCertificate": {}}]}), "volumes[v] has a source podCertificate"),
    "hostPath": (volume(hostPath={"path": "/"}), "volumes[v] is of kind hostPath"),
    "nfs": (volume(nfs={"server": "x", "path": "/"}), "volumes[v] is of kind nfs"),
    "image volume": (volume(image={"reference": "x:1"}), "volumes[v] is of kind image"),
    "sysctls": (field(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "securityContext.sysctls is set"),
    "pod as root": (field(securityContext={"runAsUser": 0}), "securityContext.runAsUser is 0"),
    "pod may be root": (field(securityContext={}), "containers[tfs-k8s].securityContext.runAsNonRoot is not true"),
    "no seccomp": (field(securityContext={"runAsNonRoot": True}), "containers[tfs-k8s].securityContext.seccompProfile is not set"),
    "unconfined": (
        field(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        "securityContext.seccompProfile.type is none of Localhost, RuntimeDefault",
    ),
    "tag": (container(image="proxy:1"), "containers[proxy].image proxy:1 has no digest"),
    "no image": (container(image=None), "containers[proxy].image None has no digest"),
    "tag and a note": (container(image="proxy:1 @sha256:x"), "containers[proxy].image proxy:1 @sha256:x has no digest"),
    "not a container": (lambda pod: pod["containers"].append("x"), "containers[1].image None has no digest"),
    "ephemeral by tag": (field(ephemeralContainers=[{"name": "e", "image": "x"}]), "ephemeralContainers[e].image x has no digest"),
    "privileged": (context(privileged=True), "containers[proxy].securityContext.privileged is set"),
    "procMount": (context(procMount="Unmasked"), "containers[proxy].securityContext.procMount is set"),
    "host process": (context(windowsOptions={"hostProcess": True}), "containers[proxy].securityContext.windowsOptions is set"),
    "SELinux": (context(seLinuxOptions={"type": "spc_t"}), "containers[proxy].securityContext.seLinuxOptions is set"),
    "escalation": (context(allowPrivilegeEscalation=True), "containers[proxy].securityContext.allowPrivilegeEscalation is not"),
    "escalation by default": (container(securityContext=None), "containers[proxy].securityContext.allowPrivilegeEscalation is"),
    "capability": (context(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "containers[proxy].securityContext.capabilities:"),
    "capabilities kept": (context(capabilities={}), "containers[proxy].securityContext.capabilities:"),
    "container as root": (context(runAsUser=0), "containers[proxy].securityContext.runAsUser is 0"),
    "container may be root": (context(runAsNonRoot=False), "containers[proxy].securityContext.runAsNonRoot is false"),
    "container unconfined": (context(seccompProfile={"type": "Unconfined"}), "containers[proxy].securityContext.seccompProfile.type"),
    "AppArmor off": (context(appArmorProfile={"type": "Unconfined"}), "containers[proxy].securityContext.appArmorProfile.type"),
    "hostPort": (container(ports=[{"containerPort": 80, "hostPort": 80}]), "containers[proxy].ports: hostPort is set"),
    "a probe elsewhere": (
        container(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}),
        "containers[proxy].livenessProbe: httpGet.host is set",
    ),
    "a hook elsewhere": (
        container(lifecycle={"postStart": {"tcpSocket": {"host": "10.0.0.1", "port": 22}}}),
        "containers[proxy].postStart: tcpSocket.host is set",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_a_pod_with_power_over_the_node_or_the_cluster_is_refused(release, change, said):
    """The error names object and field. It is the same in a workload of another kind."""
    deployment = rendered(release)["Deployment"]
    change(deployment["spec"]["template"]["spec"])
    assert refusal_of(deployment).startswith(f"deployment/tfs-server: spec.template.spec.{said}")
    job = an_object("CronJob.batch", spec={"jobTemplate": {"spec": deployment["spec"]}})
    named = refusal_of(job, Allowed(kinds=frozenset({"CronJob.batch"})))
    assert named.startswith(f"cronjob/mine: spec.jobTemplate.spec.template.spec.{said}")


def test_apparmor_is_not_turned_off_by_an_annotation(release):
    """Kubernetes before 1.30 had no field for it."""
    template = (deployment := rendered(release)["Deployment"])["spec"]["template"]
    notes = template["metadata"]["annotations"] = {
        "container.apparmor.security.beta.kubernetes.io/tfs-k8s": "unconfined"
    }
    assert "metadata.annotations turn AppArmor off" in refusal_of(deployment)
    notes["container.apparmor.security.beta.kubernetes.io/tfs-k8s"] = "runtime/default"
    check_policy([deployment], NOTHING)


ACCEPTED = {
    "a sidecar by digest": container(),
    "an init container by digest": field(initContainers=[SIDECAR]),
    "a port below 1024": context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    "a claim": volume(persistentVolumeClaim={"claimName": "c"}),
    "a Secret": volume(secret={"secretName": "s"}),
    "projected settings": volume(projected={"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}),
    "variables": lambda pod: pod["containers"][0].update(env=[{"name": "ROUND", "value": "1"}]),
    "another command": lambda pod: pod["containers"][0].update(command=["sh", "-c", "sleep 1000"]),
    "a node pool": field(nodeSelector={"pool": "gpu"}, tolerations=[{"operator": "Exists"}]),
    "a profile of the node": context(seccompProfile={"type": "Localhost", "localhostProfile": "x.json"}),
}  # fmt: skip


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_what_a_pod_needs_is_accepted(release, change):
    """The rules leave the ordinary settings of a pod open."""
    deployment = rendered(release)["Deployment"]
    change(deployment["spec"]["template"]["spec"])
    check_policy([deployment], NOTHING)


def test_a_config_map_is_no_pod():
    """Its keys may have any name."""
    check_policy([an_object("ConfigMap", data={"containers": "x", "hostNetwork": "true"})], NOTHING)


@pytest.mark.parametrize("value", [None, 7, "x", ["x"], {"x": "y"}, [{"x": "y"}], True], ids=repr)
def test_a_value_of_another_type_is_no_error_of_its_own(release, value):
    """An overlay can put anything anywhere: it is accepted, or refused in one line."""
    deployment = rendered(release)["Deployment"]
    for path in (["containers", 0, "securityContext"], ["containers", 0], []):
        for name in (
            "serviceAccount",
            "lifecycle",
            "securityContext",
            "capabilities",
            "volumes",
            "containers",
            "image",
        ):
            changed = deepcopy(deployment)
            place = changed["spec"]["template"]["spec"]
            for step in path:
                place = place[step]
            place[name] = value
            with suppress(ManifestError):
                check_policy([changed], NOTHING)

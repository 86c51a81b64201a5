"""Two releases of a model, of which only one has some objects."""

from dataclasses import replace

import yaml

from slipway.errors import TargetBusy
from slipway.records.record import close_run
from slipway.steps.deploy import deploy, redeploy
from slipway.steps.rendering import render_release

SETTINGS = {"configMapGenerator": [{"name": "settings", "literals": ["size=before"]}]}
BLOCKING = [
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "double"},
        "spec": {
            "selector": {"matchLabels": {"app": "tfs-server"}},
            "template": {
                "metadata": {"labels": {"app": "tfs-server"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [
                        {
                            "name": "double",
                            "image": f"example.com/double@sha256:{'d' * 64}",
                            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        }
                    ],
                },
            },
        },
    },
]
NO_PODS, TINY_PODS = {"hard": {"pods": "0"}}, {"limits": [{"type": "Container", "default": {"memory": "8Mi"}}]}
LIMITING = [
    {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": NO_PODS},
    {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tiny"}, "spec": TINY_PODS},
]


def free():
    """A check that finds no other run."""


def refuse():
    """A check that finds another run."""
    raise TargetBusy("held by run r9")


class Releases:
    """Two releases of a model: each has a generated ConfigMap of its own. The first is live."""

    def __init__(self, first, second, export, pushed):
        self.first, self.second, self.export = first, second, export
        self.images = [replace(pushed, release_id=digit * 12) for digit in "12"]
        self.applied = deploy(first, export, self.images[0], check=free)
        close_run(first, {}, {}, proven=True, applied=True)

    def apply_second(self):
        """Apply the second release."""
        return deploy(self.second, self.export, self.images[1], check=free)

    def bring_first_back(self, *, check=free):
        """Apply the first release again, as a rollback does; its release and what was applied."""
        release = replace(self.first, run_id="second.undo")
        stored = {"manifests_uri": self.applied.manifests_uri, "manifests_hash": self.applied.manifests_hash}
        return release, redeploy(release, self.export, self.images[0], **stored, check=check)


def two_releases(overlay, release, export, pushed, *, objects, added):
    """Two releases, of which one has these objects too: the second if they are `added`."""
    place = overlay(**SETTINGS)
    file = place / "kustomization.yaml"
    (place / "blocking.yaml").write_text(yaml.safe_dump_all(objects))

    def render(run_id, *, size, blocks):
        resources = ["../../base", *(["blocking.yaml"] if blocks else [])]
        literals = [{"name": "settings", "literals": [f"size={size}"]}]
        file.write_text(yaml.safe_dump({"resources": resources, "configMapGenerator": literals}))
        return render_release(replace(release, run_id=run_id, overlay="mine"))

    first = render("first", size="before", blocks=not added)
    return Releases(first, render("second", size="after", blocks=added), export, pushed)

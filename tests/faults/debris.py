"""Finds what a run of a model has left behind on engine, disk, cluster, machine and registry."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

KINDS = "deployment,service,hpa,pdb,configmap,lease"


def find_debris(harness, *, running=False):
    """Everything that a run should have removed, one a line. A run that is still `running` may hold the Lease."""
    in_cluster = [found for found in _in_cluster(harness) if not (running and found.startswith("Lease "))]
    return [
        *_on_engine(harness), *_on_disk(harness), *in_cluster, *_processes(harness), *_half_pushed(harness),
    ]  # fmt: skip


def _on_engine(harness):
    names = [f"container {name}" for found in harness.engine.containers(all=True) for name in found["Names"]]
    names += [f"network /{found['Name']}" for found in harness.engine.networks()]
    return [name for name in names if " /slipway-" in name and f"-{harness.model}-" in name]


def _on_disk(harness):
    scratch = (harness.root / "tmp").iterdir()
    folders = [f"temporary folder {path.name}" for path in scratch if path.name.startswith("slipway-")]
    drafts = [path for path in (harness.root / "store").rglob(".*") if path.is_file()]
    return folders + [f"draft {path.name}" for path in drafts]


def _in_cluster(harness):
    """Objects other than those of the live release, and Leases that are held."""
    found = harness.get(KINDS, "-l", f"slipway/model={harness.model}")["items"]
    live = re.compile(rf"tfs-{harness.model}(-monitoring-(?!preview)\w+)?")
    others = [one for one in found if not live.fullmatch(one["metadata"]["name"]) and one["kind"] != "Lease"]
    held = [one for one in found if one["kind"] == "Lease" and one["spec"].get("holderIdentity")]
    return [f"{one['kind']} {one['metadata']['name']}" for one in (*others, *held)]


def _processes(harness):
    """Exporters of this harness that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"{harness.project}/include/model".encode()) for word in words):
            found.append(f"process {process.name}")
    return found


def _half_pushed(harness):
    """Blobs that a tag in the registry names and the registry does not have, or has with another size."""
    host, prefix = harness.stand["registry"].split("/", 1)
    api = f"http://{host}/v2/{prefix}/{harness.model}"
    manifest_type = "application/vnd.docker.distribution.manifest.v2+json"
    try:
        tags = read_json(f"{api}/tags/list")["tags"] or []
    except urllib.error.HTTPError:
        return []
    wanted = {}
    for tag in tags:
        manifest = read_json(f"{api}/manifests/{tag}", Accept=manifest_type)
        wanted |= {part["digest"]: part["size"] for part in (manifest["config"], *manifest["layers"])}
    sizes = {digest: blob_size(f"{api}/blobs/{digest}") for digest in wanted}
    return [f"blob {digest}" for digest, size in wanted.items() if sizes[digest] != size]


def read_json(url, **headers):
    """The JSON at a URL."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)


def blob_size(url):
    """The size that the registry reports for a blob; None if it has none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except urllib.error.HTTPError:
        return None

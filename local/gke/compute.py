"""Compute Engine: the quotas of a project and of a region, zones, and machine types.

GET compute /compute/v1/projects/{project}                                    quotas of all regions together
GET compute /compute/v1/projects/{project}/regions/{region}                   a region's quotas and zones
GET compute /compute/v1/projects/{project}/zones/{zone}/machineTypes/{type}   a machine type's CPUs and memory
"""

import re
from collections.abc import Mapping
from typing import Any

import grpc

from local.gke.errors import Refusal
from local.gke.projects import the_project
from local.gke.rest import Request, Route
from local.gke.state import REGIONS

MEMORY_MB_PER_CPU = {"standard": 4096, "highmem": 8192, "highcpu": 1024}
FAMILIES = ("n1", "n2", "n2d", "e2", "c3", "c4", "t2d")
MOST_CPUS = 128


def quotas(limits: Mapping[str, float], usage: Mapping[str, float]) -> list[dict[str, Any]]:
    """Quotas as Compute Engine lists them."""
    return [{"metric": name, "limit": limit, "usage": usage.get(name, 0.0)} for name, limit in limits.items()]


def not_found(resource: str) -> Refusal:
    """Compute Engine's error for a missing resource."""
    return Refusal(grpc.StatusCode.NOT_FOUND, f"The resource '{resource}' was not found")


def _project(request: Request) -> Any:
    project, compute = the_project(request), request.google.compute
    listed = quotas(compute.limits_everywhere, compute.usage)
    return {"kind": "compute#project", "name": project.id, "quotas": listed}


def _region(request: Request) -> Any:
    project, region, compute = the_project(request), request.path["region"], request.google.compute
    if region not in REGIONS:
        raise not_found(f"projects/{project.id}/regions/{region}")
    link = f"https://compute/compute/v1/projects/{project.id}"
    return {
        "kind": "compute#region",
        "name": region,
        "status": "UP",
        "quotas": quotas(compute.limits, compute.usage),
        "zones": [f"{link}/zones/{region}-{letter}" for letter in REGIONS[region]],
        "selfLink": f"{link}/regions/{region}",
    }


def _machine_type(request: Request) -> Any:
    project, zone, name = the_project(request), request.path["zone"], request.path["type"]
    region, _, letter = zone.rpartition("-")
    found = re.fullmatch(rf"({'|'.join(FAMILIES)})-({'|'.join(MEMORY_MB_PER_CPU)})-(\d+)", name)
    if letter not in REGIONS.get(region, "") or not found or int(found[3]) > MOST_CPUS:
        raise not_found(f"projects/{project.id}/zones/{zone}/machineTypes/{name}")
    cpus = int(found[3])
    per_cpu = 3840 if name.startswith("n1-standard") else MEMORY_MB_PER_CPU[found[2]]
    return {"kind": "compute#machineType", "name": name, "zone": zone, "guestCpus": cpus, "memoryMb": cpus * per_cpu}


ROUTES = (
    Route(name="compute.projects.get", verb="GET", path="/compute/v1/projects/{project}", answer=_project),
    Route(
        name="compute.regions.get", verb="GET", path="/compute/v1/projects/{project}/regions/{region}", answer=_region
    ),
    Route(
        name="compute.machineTypes.get",
        verb="GET",
        path="/compute/v1/projects/{project}/zones/{zone}/machineTypes/{type}",
        answer=_machine_type,
    ),
)

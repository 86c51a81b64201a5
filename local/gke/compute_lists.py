"""Compute Engine's aggregated lists of resources that outlive a cluster: parts of load balancers, addresses and disks.

GET compute /compute/v1/projects/{project}/aggregated/{resource}    forwardingRules, targetPools, addresses, disks

Clusters here have no machines, and their Services have no Google load balancers. A test therefore sets these resources
(`control.py`, PUT /residue). As at Google, deleting a cluster does not delete them.
"""

from typing import Any

from local.gke.projects import the_project
from local.gke.rest import Request, Route
from local.gke.state import Residue

PAGE = 1  # scopes on a page, so that a client that reads only the first page fails


def _aggregated(resource: str) -> Any:
    def answer(request: Request) -> Any:
        the_project(request)
        scopes = getattr(request.google.residue, resource)
        names = sorted(scopes) or ["global"]
        first = int((request.query.get("pageToken") or ["0"])[0])
        empty = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope on this page."}}
        page = names[first : first + PAGE]
        body: dict[str, Any] = {
            "kind": f"compute#{resource}AggregatedList",
            "items": {name: {resource: scopes[name]} if scopes.get(name) else empty for name in page},
        }
        return body if first + PAGE >= len(names) else {**body, "nextPageToken": str(first + PAGE)}

    return answer


ROUTES = tuple(
    Route(
        name=f"compute.{resource}.aggregatedList",
        verb="GET",
        path=f"/compute/v1/projects/{{project}}/aggregated/{resource}",
        answer=_aggregated(resource),
    )
    for resource in Residue.__slots__
)

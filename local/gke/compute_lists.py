"""Compute Engine's aggregated lists of what outlives a cluster: parts of load balancers, addresses and disks.

GET compute /compute/v1/projects/{project}/aggregated/{resource}    forwardingRules, targetPools, addresses, disks

Clusters here have no machines and their Services no load balancers of Google's, so that a test says what there is (`control.py`,
PUT /residue). As with Google, deleting a cluster deletes none of it.
"""

from typing import Any

from local.gke.projects import the_project
from local.gke.rest import Asked, Route
from local.gke.state import Residue

PAGE = 1  # scopes on a page, so that a client that reads one page alone is found out


def _aggregated(resource: str) -> Any:
    def answer(asked: Asked) -> Any:
        the_project(asked)
        scopes = getattr(asked.google.residue, resource)
        names = sorted(scopes) or ["global"]
        first = int((asked.query.get("pageToken") or ["0"])[0])
        empty = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope on this page."}}
        page = names[first : first + PAGE]
        said: dict[str, Any] = {
            "kind": f"compute#{resource}AggregatedList",
            "items": {name: {resource: scopes[name]} if scopes.get(name) else empty for name in page},
        }
        return said if first + PAGE >= len(names) else {**said, "nextPageToken": str(first + PAGE)}

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

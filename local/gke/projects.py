"""The one project: its description, permissions (Cloud Resource Manager) and enabled APIs (Service Usage).

GET  cloudresourcemanager /v3/projects/{project}                        the project
POST cloudresourcemanager /v1|v3/projects/{project}:testIamPermissions  which of these permissions the caller has
GET  serviceusage /v1/projects/{project}/services:batchGet?names=…      whether APIs are ENABLED
"""

from typing import Any

import grpc

from local.gke.errors import Refusal, no_such_project
from local.gke.rest import Request, Route
from local.gke.state import Project

MOST_SERVICES = 30  # in one batchGet


def the_project(request: Request) -> Project:
    """The project of a request. Raises Refusal if it is another project."""
    project = request.google.project
    if request.path["project"] not in {project.id, str(project.number)}:
        raise no_such_project(request.path["project"])
    return project


def _get(request: Request) -> Any:
    project = the_project(request)
    return {"name": f"projects/{project.number}", "projectId": project.id, "state": "ACTIVE", "displayName": project.id}


def _test_permissions(request: Request) -> Any:
    project = the_project(request)
    had = [one for one in request.body["permissions"] if one not in project.missing]
    return {"permissions": had} if had else {}


def _batch_get(request: Request) -> Any:
    project, names = the_project(request), request.query.get("names", ())
    if not 0 < len(names) <= MOST_SERVICES:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"names must have 1 to {MOST_SERVICES} entries.")
    return {"services": [_service(project, name.rpartition("/")[2]) for name in names]}


def _service(project: Project, service: str) -> dict[str, Any]:
    return {
        "name": f"projects/{project.number}/services/{service}",
        "parent": f"projects/{project.number}",
        "config": {"name": service},
        "state": "DISABLED" if service in project.disabled else "ENABLED",
    }


ROUTES = (
    Route(
        name="cloudresourcemanager.projects.testIamPermissions",
        verb="POST",
        path="/v{version}/projects/{project}:testIamPermissions",
        answer=_test_permissions,
    ),
    Route(name="cloudresourcemanager.projects.get", verb="GET", path="/v3/projects/{project}", answer=_get),
    Route(
        name="serviceusage.services.batchGet",
        verb="GET",
        path="/v1/projects/{project}/services:batchGet",
        answer=_batch_get,
    ),
)

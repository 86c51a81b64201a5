"""The one project that there is: Cloud Resource Manager's word on it and on permissions, and which APIs it has enabled.

GET  cloudresourcemanager /v3/projects/{project}                        the project
POST cloudresourcemanager /v1|v3/projects/{project}:testIamPermissions  which of these permissions the caller has
GET  serviceusage /v1/projects/{project}/services:batchGet?names=…      whether APIs are ENABLED
"""

from typing import Any

import grpc

from local.gke.errors import Refusal, no_such_project
from local.gke.rest import Asked, Route
from local.gke.state import Project

MOST_SERVICES = 30  # a batchGet


def the_project(asked: Asked) -> Project:
    """The project that a call is about. Raises Refusal where it is none that there is."""
    project = asked.google.project
    if asked.path["project"] not in {project.id, str(project.number)}:
        raise no_such_project(asked.path["project"])
    return project


def _get(asked: Asked) -> Any:
    project = the_project(asked)
    return {"name": f"projects/{project.number}", "projectId": project.id, "state": "ACTIVE", "displayName": project.id}


def _test_permissions(asked: Asked) -> Any:
    project = the_project(asked)
    had = [one for one in asked.body["permissions"] if one not in project.missing]
    return {"permissions": had} if had else {}


def _batch_get(asked: Asked) -> Any:
    project, names = the_project(asked), asked.query.get("names", ())
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

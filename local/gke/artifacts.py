"""Artifact Registry: the caller's permissions on a repository. As at Google, a missing repository gives none.

POST artifactregistry /v1/projects/{project}/locations/{location}/repositories/{repository}:testIamPermissions
"""

from typing import Any

from local.gke.projects import the_project
from local.gke.rest import Request, Route


def _test_permissions(request: Request) -> Any:
    project = the_project(request)
    if f"{request.path['location']}/{request.path['repository']}" not in request.google.artifacts.repositories:
        return {}
    had = [one for one in request.body["permissions"] if one not in project.missing]
    return {"permissions": had} if had else {}


ROUTES = (
    Route(
        name="artifactregistry.projects.locations.repositories.testIamPermissions",
        verb="POST",
        path="/v1/projects/{project}/locations/{location}/repositories/{repository}:testIamPermissions",
        answer=_test_permissions,
    ),
)

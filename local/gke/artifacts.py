"""Artifact Registry: which permissions the caller has on a repository; of one that is not there, none, as Google answers it.

POST artifactregistry /v1/projects/{project}/locations/{location}/repositories/{repository}:testIamPermissions
"""

from typing import Any

from local.gke.projects import the_project
from local.gke.rest import Asked, Route


def _test_permissions(asked: Asked) -> Any:
    project = the_project(asked)
    if f"{asked.path['location']}/{asked.path['repository']}" not in asked.google.artifacts.repositories:
        return {}
    had = [one for one in asked.body["permissions"] if one not in project.missing]
    return {"permissions": had} if had else {}


ROUTES = (
    Route(
        name="artifactregistry.projects.locations.repositories.testIamPermissions",
        verb="POST",
        path="/v1/projects/{project}/locations/{location}/repositories/{repository}:testIamPermissions",
        answer=_test_permissions,
    ),
)

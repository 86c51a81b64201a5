"""The errors that Google's APIs return."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class Refusal(Exception):
    """A status code of google.rpc, its message, and the details that REST adds."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def service_disabled(api: str, project_number: int) -> Refusal:
    """The error of an API that the project has not enabled."""
    service = f"{api}.googleapis.com"
    return Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        f"{service} has not been used in project {project_number} before or it is disabled. Enable it by visiting "
        f"https://console.developers.google.com/apis/api/{service}/overview?project={project_number} then retry.",
        [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "SERVICE_DISABLED",
                "domain": "googleapis.com",
                "metadata": {"service": service, "consumer": f"projects/{project_number}"},
            }
        ],
    )


def no_such_project(project: str) -> Refusal:
    """The error of a project that does not exist. Google returns the same for one that the caller may not see."""
    return Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        f"Permission 'resourcemanager.projects.get' denied on resource '//cloudresourcemanager.googleapis.com/projects/{project}' "
        "(or it may not exist).",
    )

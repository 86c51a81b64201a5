"""A real Google project that the environment names, used in place of the emulator by the stand and by tests (docs/gke.md)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

# The variables that make the stand's Airflow use the emulator.
EMULATED = ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleProject:
    """A project in which runs create clusters that are billed."""

    project: str
    location: str
    key: str | None  # the key file of a service account; None: the machine's default credentials
    impersonate: str | None  # the account that these credentials impersonate; None: no other account
    repository: str | None  # the registry and repository that images are pushed to
    namespace: str

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The given environment with Airflow's connection `google_cloud_default` set to this project."""
        kept = {name: value for name, value in given.items() if name not in EMULATED or os.environ.get(name) == value}
        extra = {"project": self.project, **({"key_path": self.key} if self.key else {})}
        if self.impersonate:
            extra["impersonation_chain"] = self.impersonate
        own = {
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps({"conn_type": "google_cloud_platform", "extra": extra}),
            "AIRFLOW_VAR_SLIPWAY_NAMESPACE": self.namespace,
            **({"AIRFLOW_VAR_SLIPWAY_REGISTRY": self.repository} if self.repository else {}),
        }
        return {**kept, **{name: os.environ[name] for name in EMULATED if name in os.environ}, **own}


def read_google_project(environment: Mapping[str, str] = os.environ) -> GoogleProject | None:
    """The project that the environment names, or None."""
    project = environment.get("SLIPWAY_GCP_PROJECT")
    if not project:
        return None
    return GoogleProject(
        project=project,
        location=environment.get("SLIPWAY_GCP_LOCATION") or "us-central1-a",
        key=environment.get("SLIPWAY_GCP_KEY") or None,
        impersonate=environment.get("SLIPWAY_GCP_IMPERSONATE") or None,
        repository=environment.get("SLIPWAY_GCP_REPOSITORY") or None,
        namespace=environment.get("SLIPWAY_GCP_NAMESPACE") or "default",
    )

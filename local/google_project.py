"""A real project of Google's in place of the emulator, where the environment names one (docs/gke.md): of stand and tests."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

# What the stand tells its own Airflow, so that it asks the emulator.
EMULATED = ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleProject:
    """Where clusters may be made that somebody pays for."""

    project: str
    location: str
    key: str | None  # a service account's key file; None: the machine's own credentials
    impersonate: str | None  # the account that these credentials act as; None: their own
    repository: str | None  # where images are pushed
    namespace: str

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The given environment, in which Airflow's `google_cloud_default` is this project."""
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
    """The project that the environment names, None where it names none."""
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

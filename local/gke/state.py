"""What the emulated project has and what its account may do, as plain values. `control.py` replaces them."""

from dataclasses import dataclass, field
from typing import Any

from local.gke.names import PROJECT

REGIONS = {"us-central1": "abcf", "europe-west4": "abc", "us-east1": "bcd"}  # a region's zones
# By scope (regions/us-central1, zones/us-central1-a, global), as Google's JSON.
Scopes = dict[str, list[dict[str, Any]]]


@dataclass(slots=True, kw_only=True)
class Project:
    """The project's permissions and APIs. By default its account may do everything."""

    id: str = PROJECT
    number: int = 314159265358
    missing: list[str] = field(default_factory=list)  # permissions that the account does not have
    disabled: list[str] = field(default_factory=list)  # APIs that are not enabled: compute.googleapis.com


@dataclass(slots=True, kw_only=True)
class Compute:
    """Limits and usage by Compute Engine's names of quotas."""

    limits: dict[str, float] = field(
        default_factory=lambda: {
            "CPUS": 72.0,
            "N2_CPUS": 72.0,
            "INSTANCES": 720.0,
            "IN_USE_ADDRESSES": 69.0,
            "DISKS_TOTAL_GB": 40960.0,
            "SSD_TOTAL_GB": 5000.0,
        }
    )
    usage: dict[str, float] = field(default_factory=dict)
    limits_everywhere: dict[str, float] = field(default_factory=lambda: {"CPUS_ALL_REGIONS": 128.0})


@dataclass(slots=True, kw_only=True)
class Residue:
    """Parts of load balancers, addresses and disks by scope. Deleting a cluster does not delete them."""

    forwardingRules: Scopes = field(default_factory=dict)  # noqa: N815 - Compute Engine's own names
    targetPools: Scopes = field(default_factory=dict)  # noqa: N815
    addresses: Scopes = field(default_factory=dict)
    disks: Scopes = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Artifacts:
    """The repositories of Artifact Registry."""

    repositories: list[str] = field(default_factory=lambda: ["us-central1/models"])  # location/name

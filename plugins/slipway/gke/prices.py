"""What a cluster costs per hour, from the dated table in include/prices.yaml. Pure, except for reading that file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from slipway.errors import InputRefused, one_line
from slipway.gke.quota import BOOT_DISK_GB, ZONES_OF_A_REGION
from slipway.paths import INCLUDE
from slipway.target import ClusterSpec, region_of

PRICES = INCLUDE / "prices.yaml"
HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of machine types."""

    vcpu_hour: float
    gb_hour: float
    gb_per_vcpu: dict[str, float]  # by kind: standard, highmem, highcpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Autopilot:
    """The price of what pods request."""

    vcpu_hour: float
    gb_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """List prices of one region on one date."""

    date: str
    source: str
    region: str
    currency: str
    cluster_per_hour: float
    forwarding_rule_per_hour: float
    address_per_hour: float
    disk_per_gb_month: float
    autopilot: Autopilot
    families: dict[str, Family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The parts of a cluster that cost money."""

    location: str
    nodes: tuple[tuple[str, int], ...]  # machine type and count; empty: Autopilot
    public_nodes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a shape costs, part by part, and which parts the table does not list."""

    per_hour: float  # of the known parts
    parts: tuple[str, ...]
    unknown: tuple[str, ...]
    table: str

    def __str__(self) -> str:
        """One line for a log."""
        more = f"; plus what the table does not list: {'; '.join(self.unknown)}" if self.unknown else ""
        return f"about ${self.per_hour:.2f} per hour ({', '.join(self.parts)}; {self.table}){more}"


def read_prices(path: Path = PRICES) -> Prices:
    """The table of prices, which users may edit. Raises InputRefused if it is invalid."""
    try:
        return TypeAdapter(Prices).validate_python(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, yaml.YAMLError) as error:
        why = one_line(error)
    raise InputRefused(f"{path}: {why}. Next: fix the table of prices, or restore the original")


def cluster_shape_of_spec(spec: ClusterSpec, location: str) -> Shape:
    """The shape of a cluster that is created from this spec."""
    times = ZONES_OF_A_REGION if region_of(location) == location else 1
    return Shape(
        location=location,
        nodes=tuple((pool.machine_type, pool.count * times) for pool in spec.node_pools),
        public_nodes=not spec.private_nodes,
    )


def cluster_shape_of_found(found: Mapping[str, Any]) -> Shape:
    """The shape of an existing cluster, as Google describes it; counts the initial nodes of its pools."""
    autopilot = bool((found.get("autopilot") or {}).get("enabled"))
    pools = [] if autopilot else found.get("node_pools") or []
    zones = len(found.get("locations") or ()) or 1
    return Shape(
        location=str(found["location"]),
        nodes=tuple(
            (
                str(pool["config"]["machine_type"]),
                int(pool["initial_node_count"]) * (len(pool.get("locations") or ()) or zones),
            )
            for pool in pools
        ),
        public_nodes=not (found.get("private_cluster_config") or {}).get("enable_private_nodes"),
    )


def standing_cost(prices: Prices, shape: Shape) -> Cost:
    """What a cluster of this shape costs per hour."""
    parts, unknown = {"the cluster": prices.cluster_per_hour}, []
    for machine_type, count in shape.nodes:
        price = machine_price(prices, machine_type)
        if price is None:
            unknown.append(f"{count} {machine_type}")
        else:
            parts[f"{count} {machine_type}"] = count * price
    nodes = sum(count for _, count in shape.nodes)
    parts[f"{nodes} boot disks of {BOOT_DISK_GB} GB"] = nodes * BOOT_DISK_GB * prices.disk_per_gb_month / HOURS_A_MONTH
    if shape.public_nodes:
        parts[f"{nodes} addresses of nodes"] = nodes * prices.address_per_hour
    if not shape.nodes:
        per = prices.autopilot
        unknown.append(
            f"what its pods request, at ${per.vcpu_hour:.4f} per vCPU and ${per.gb_hour:.4f} per GB, each per hour"
        )
    if (region := region_of(shape.location)) != prices.region:
        unknown.append(f"the difference between prices in {region} and {prices.region}")
    return Cost(
        per_hour=round(sum(parts.values()), 4),
        parts=tuple(f"{what} ${price:.2f}" for what, price in parts.items() if price),
        unknown=tuple(unknown),
        table=f"each load balancer ${prices.forwarding_rule_per_hour:.3f} more; list prices of {prices.region} of {prices.date}",
    )


def machine_price(prices: Prices, machine_type: str) -> float | None:
    """The price of one machine per hour, None if the table does not list its type."""
    named = re.fullmatch(r"(\w+)-(\w+)-(\d+)", machine_type)
    family = prices.families.get(named[1]) if named else None
    if named is None or family is None or named[2] not in family.gb_per_vcpu:
        return None
    vcpus = int(named[3])
    return vcpus * (family.vcpu_hour + family.gb_per_vcpu[named[2]] * family.gb_hour)

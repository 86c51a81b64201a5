"""Assigns a loopback address to each Service of type LoadBalancer in one namespace. kube-proxy does the forwarding.

It runs in the dev environment: `python -m local.parts.loadbalancer KUBECONFIG NAMESPACE 127.20.SLOT`.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

LAST_HOST = 254
RESYNC_S = 30  # a watch is restarted this often, in case it broke without an error
PAUSE_S = 1  # between retries while the API server does not respond


def plan_addresses(services: list[Mapping[str, Any]], prefix: str) -> dict[str, str]:
    """The lowest free address for each Service that has none of this prefix. Existing addresses are kept.

    A Service with a `loadBalancerClass` gets none: as in Kubernetes, that class of load balancers provides it.
    """
    balanced = [service for service in services if service["spec"].get("type") == "LoadBalancer"]
    taken = {address for service in balanced if (address := address_of(service))}
    ours = [service for service in balanced if not service["spec"].get("loadBalancerClass")]
    given = {service["metadata"]["name"]: address_of(service) for service in ours}
    free = (f"{prefix}.{host}" for host in range(1, LAST_HOST + 1) if f"{prefix}.{host}" not in taken)
    return {
        name: next(free)
        for name, address in sorted(given.items())
        if not address or not address.startswith(f"{prefix}.")
    }


def address_of(service: Mapping[str, Any]) -> str | None:
    """The address of a Service, or None."""
    ingress = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
    return ingress[0].get("ip") if ingress else None


def main(kubeconfig: str, namespace: str, prefix: str) -> None:
    """Assign addresses until the process ends."""
    from kubernetes import client, config, watch  # imported here: the pure functions work without the dev environment

    config.load_kube_config(kubeconfig)
    core = client.CoreV1Api()
    while True:
        try:
            assign_addresses(core, namespace, prefix)
            for _event in watch.Watch().stream(core.list_namespaced_service, namespace, timeout_seconds=RESYNC_S):
                assign_addresses(core, namespace, prefix)
        except Exception as trouble:  # whatever the API server's failure: log it and retry
            words = " ".join(str(trouble).split())
            sys.stderr.write(f"{type(trouble).__name__}: {words[:300]}\n")
            time.sleep(PAUSE_S)


def assign_addresses(core: Any, namespace: str, prefix: str) -> None:
    """Assign the missing addresses of the namespace's Services once."""
    found = core.list_namespaced_service(namespace, _preload_content=True)
    services = core.api_client.sanitize_for_serialization(found)["items"]
    for name, address in plan_addresses(services, prefix).items():
        core.patch_namespaced_service_status(
            name, namespace, {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        )
        sys.stderr.write(f"service/{name}: {address}\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])

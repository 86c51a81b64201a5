"""All of the emulated Google behind one port: gRPC for `container`, REST for the other hosts."""

from collections.abc import Iterator
from contextlib import contextmanager

from local.gke import artifacts, cluster_manager, compute, compute_lists, iam_credentials, projects, rest
from local.gke.clusters import Google
from local.gke.identity import Identity
from local.gke.sni_proxy import open_door
from local.gke.tokens import Issuer

ROUTES = (
    *projects.ROUTES,
    *compute.ROUTES,
    *compute_lists.ROUTES,
    *artifacts.ROUTES,
)


@contextmanager
def serve(google: Google, issuer: Issuer, identity: Identity) -> Iterator[None]:
    """Serve at the identity's universe while the block lasts."""
    key, certificate = identity.server()
    clusters, clusters_port = cluster_manager.serve(google, issuer, port=0, key=key, certificate=certificate)
    routes = (*ROUTES, *iam_credentials.routes(key.decode()))
    others = rest.serve(google, issuer, routes, key=identity.server_key, certificate=identity.server_certificate)

    def server_of(host: str) -> int:
        return clusters_port if host.startswith("container.") else int(others.server_address[1])

    door = open_door(int(identity.universe.rpartition(":")[2]), server_of)
    try:
        yield
    finally:
        for server in (door, others):
            server.shutdown()
            server.server_close()
        clusters.stop(grace=1)

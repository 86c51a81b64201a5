"""An emulator of Google's side of GKE behind one port: gRPC for `container`, REST for the other hosts.

It emulates what the unmodified Google provider calls, and nothing more. It is not Google: it bills nobody and has one
project. The endpoint of every cluster is the stand's real Kubernetes, so everything after RUNNING is real.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from local.gke import artifacts, cluster_manager, compute, compute_lists, iam_credentials, projects, rest
from local.gke.clusters import Google
from local.gke.identity import Identity
from local.gke.sni_proxy import serve_proxy
from local.gke.tokens import Issuer

ROUTES = (
    *projects.ROUTES,
    *compute.ROUTES,
    *compute_lists.ROUTES,
    *artifacts.ROUTES,
)


@contextmanager
def serve(google: Google, issuer: Issuer, identity: Identity) -> Iterator[None]:
    """Serve at the identity's universe until the block ends."""
    key, certificate = identity.server()
    clusters, clusters_port = cluster_manager.serve(google, issuer, port=0, key=key, certificate=certificate)
    routes = (*ROUTES, *iam_credentials.routes(key.decode()))
    others = rest.serve(google, issuer, routes, key=identity.server_key, certificate=identity.server_certificate)

    def port_of(host: str) -> int:
        return clusters_port if host.startswith("container.") else int(others.server_address[1])

    proxy = serve_proxy(int(identity.universe.rpartition(":")[2]), port_of)
    try:
        yield
    finally:
        for server in (proxy, others):
            server.shutdown()
            server.server_close()
        clusters.stop(grace=1)

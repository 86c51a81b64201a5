"""google.container.v1.ClusterManager over gRPC with TLS: the methods that the provider calls.

The message classes are those of google.cloud.container_v1.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.container_v1 import types

from local.gke.clusters import Google
from local.gke.errors import Refusal, service_disabled
from local.gke.tokens import Issuer, who

SERVICE = "/google.container.v1.ClusterManager/"


def serve(google: Google, issuer: Issuer, *, port: int, key: bytes, certificate: bytes) -> tuple[grpc.Server, int]:
    """Serve on loopback. Returns the server and its port; for port 0 it is a free one."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=(ClusterManager(google, issuer),))
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    return server, bound


class ClusterManager(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Finds the method, authenticates the caller, applies the configured faults, and answers."""

    def __init__(self, google: Google, issuer: Issuer) -> None:
        self.google = google
        self.issuer = issuer
        self.methods: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
            "CreateCluster": (types.CreateClusterRequest, types.Operation, self._create),
            "GetCluster": (types.GetClusterRequest, types.Cluster, lambda request: google.get(request.name)),
            "ListClusters": (types.ListClustersRequest, types.ListClustersResponse, self._clusters),
            "DeleteCluster": (types.DeleteClusterRequest, types.Operation, lambda request: google.delete(request.name)),
            "GetOperation": (
                types.GetOperationRequest,
                types.Operation,
                lambda request: google.operation(request.name),
            ),
            "ListOperations": (types.ListOperationsRequest, types.ListOperationsResponse, self._operations),
        }

    def service(self, details: Any) -> Any:
        """The handler of a call, or None for a method that is not emulated: the client then gets UNIMPLEMENTED."""
        name = details.method.removeprefix(SERVICE)
        if name not in self.methods:
            return None
        request_type, response_type, answer = self.methods[name]

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                with self.google.lock:
                    return self._answer(name, answer, request, context)
            except Refusal as refusal:
                context.abort(refusal.code, str(refusal))

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=request_type.deserialize, response_serializer=response_type.serialize
        )

    def _answer(self, name: str, answer: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
        faults = self.google.faults
        self.google.calls[name] += 1
        metadata = dict(context.invocation_metadata())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if faults.refuse_tokens or who(token, [self.issuer]) is None:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")
        if faults.unavailable.get(name, 0) > 0:
            faults.unavailable[name] -= 1
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
        if "container.googleapis.com" in self.google.project.disabled:
            raise service_disabled("container", self.google.project.number)
        if name in faults.deny:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED, f'Required "container.clusters.{_verb(name)}" permission(s).'
            )
        done = answer(request)
        if faults.swallow.get(name, 0) > 0:
            faults.swallow[name] -= 1
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
        return done

    def _create(self, request: Any) -> Any:
        self.google.advance()
        return self.google.create(request.parent, request.cluster)

    def _clusters(self, request: Any) -> Any:
        return types.ListClustersResponse(clusters=self.google.below(self.google.clusters, request.parent))

    def _operations(self, request: Any) -> Any:
        return types.ListOperationsResponse(operations=self.google.below(self.google.operations, request.parent))


def _verb(method: str) -> str:
    return method.removesuffix("Cluster").lower()

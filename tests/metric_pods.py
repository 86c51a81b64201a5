"""A small API server with pods that have TF Serving's page of metrics, and the model server behind them."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from small_server import start_server, stop_server

from serving_protocol.metrics import LATENCY_US, Counter, Sampler

MODEL = "digits-vit"
PREDICTED = json.dumps({"predictions": [{"label": "3", "confidence": 0.95}]})


class MetricPod:
    """A pod with a server, and what that has counted."""

    def __init__(self, name, release_id="abcdefabcdef", *, container="tfs-k8s"):
        self.name, self.release_id, self.container = name, release_id, container
        self.restarts, self.ready, self.page = 0, True, None
        self.start_again(restarts=0)

    def start_again(self, *, restarts=1):
        """The server starts again: it counts from zero."""
        self.restarts += restarts
        self.requests = Counter(":tensorflow:serving:request_count", "model_name", "status")
        self.latency = Sampler(
            ":tensorflow:serving:request_latency", "model_name", "API", "entrypoint", limits=LATENCY_US
        )

    def count(self, *times_ms, **statuses):
        """Count answered predictions with these times, and requests with these other statuses."""
        for number, time_ms in enumerate(times_ms):
            api = ("predict", "REST") if number % 2 else ("Predict", "GRPC")
            self.requests.add(MODEL, "OK")
            self.latency.add(time_ms * 1000, MODEL, *api)
        for status, count in statuses.items():
            self.requests.add(MODEL, status, count=count)

    def text(self):
        """Its page."""
        return self.page or "\n".join([*self.requests.lines(), *self.latency.lines(), ""])

    def described(self):
        """Its object."""
        labels = {"slipway/model": MODEL, "slipway/release": self.release_id}
        ports = [{"name": "grpc", "containerPort": 8500}, {"name": "restapi", "containerPort": 8501}]
        status = {"name": self.container, "restartCount": self.restarts, "ready": self.ready}
        complete = {"image": "i", "imageID": "i"}  # the client refuses a status without them
        return {
            "metadata": {"name": self.name, "uid": f"uid-{self.name}", "namespace": "shop", "labels": labels},
            "spec": {"containers": [{"name": self.container, "ports": ports}]},
            "status": {"phase": "Running", "containerStatuses": [{**status, **complete}]},
        }


class MetricCluster:
    """The API server of these pods, which also answers predictions, as a load balancer in front of them would."""

    def __init__(self, *pods):
        self.pods = list(pods)
        self.predicted = (200, PREDICTED)
        self.denied = None  # status and body of every request for a page
        self.live = None  # the release id in the Deployment; None: there is no Deployment
        self.at_look = lambda _number: None  # called before each list of the pods
        self.looks = 0
        self.lock = threading.Lock()
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with cluster.lock:
                    status, text = cluster.answer(urlsplit(self.path))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET  # noqa: N815 - the names are http.server's

            def log_message(self, *_):
                """Logs nothing."""

        self.server = start_server(Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, parts):
        """Status and body for a request."""
        if parts.path.endswith(":predict"):
            return self.predicted
        if parts.path == "/api/v1/namespaces/shop/pods":
            self.looks += 1
            self.at_look(self.looks)
            wanted = dict(one.split("=") for one in parse_qs(parts.query)["labelSelector"][0].split(","))
            pods = [pod.described() for pod in self.pods]
            return 200, json.dumps(
                {"items": [pod for pod in pods if wanted.items() <= pod["metadata"]["labels"].items()]}
            )
        if parts.path == "/apis/apps/v1/namespaces/shop/deployments/tfs-server":
            return self.deployment()
        for pod in self.pods:
            if parts.path == f"/api/v1/namespaces/shop/pods/{pod.name}:8501/proxy/monitoring/prometheus/metrics":
                return self.denied or (200, pod.text())
        return 404, json.dumps({"kind": "Status", "apiVersion": "v1", "message": f"{parts.path} not found"})

    def deployment(self):
        """The Deployment."""
        if self.live is None:
            return 404, json.dumps({"kind": "Status", "apiVersion": "v1", "message": "there is none"})
        labels = {"slipway/release": self.live}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "tfs-k8s"}]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        return 200, json.dumps({"metadata": {"name": "tfs-server"}, "spec": spec})

    def stop(self):
        """End the server."""
        stop_server(self.server)

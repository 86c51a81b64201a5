"""A small API server that forwards ports of pods as Kubernetes does, over websockets with the protocol v4.channel.k8s.io."""

import asyncio
import struct
import threading

from aiohttp import WSMsgType, web

MODEL = "digits-vit"


def labels_of(release_id):
    """The labels of a release's pods."""
    return {"slipway/model": MODEL, "slipway/release": release_id}


def described(name, port, *, release_id="r2-preview", ready=True):
    """A pod's object; its gRPC port is that of a server on this machine."""
    status = {"name": "tfs-k8s", "restartCount": 0, "ready": ready, "image": "i", "imageID": "i"}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "shop", "labels": labels_of(release_id)},
        "spec": {"containers": [{"name": "tfs-k8s", "ports": [{"name": "grpc", "containerPort": port}]}]},
        "status": {"phase": "Running", "containerStatuses": [status]},
    }


class ForwardingCluster:
    """The API server of these pods, and of a Service that answers predictions. It notes the pod of each port-forward."""

    def __init__(self, *pods):
        self.pods, self.forwarded, self.refused, self.open = pods, [], None, set()
        self.loop, self.ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(20)

    def _run(self):
        self.loop.run_until_complete(self._serve())

    async def _serve(self):
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/shop/pods", self._list)
        app.router.add_get("/api/v1/namespaces/shop/pods/{pod}/portforward", self._forward)
        app.router.add_get("/api/v1/namespaces/kube-system", self._namespace)
        app.router.add_post("/api/v1/namespaces/shop/services/{service}/proxy/{path:.*}", self._predict)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url, self.over = f"http://127.0.0.1:{runner.addresses[0][1]}", asyncio.Event()
        self.ready.set()
        await self.over.wait()
        await runner.cleanup()

    @staticmethod
    async def _namespace(_):
        return web.json_response({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}})

    @staticmethod
    async def _predict(_):
        return web.json_response({"predictions": []})

    async def _list(self, request):
        wanted = dict(one.split("=") for one in request.query["labelSelector"].split(","))
        return web.json_response(
            {"items": [pod for pod in self.pods if wanted.items() <= pod["metadata"]["labels"].items()]}
        )

    async def _forward(self, request):
        if self.refused:
            return web.json_response({"kind": "Status", "apiVersion": "v1"}, status=self.refused)
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(request)
        port = int(request.query["ports"])
        self.forwarded.append(request.match_info["pod"])
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            await socket.send_bytes(b"\x01" + f"error forwarding port {port}: {error.strerror}".encode())
            return socket
        self.open.add(socket)
        answers = asyncio.create_task(self._answer(socket, reader))
        async for message in socket:
            assert (message.type, message.data[0]) == (WSMsgType.BINARY, 0)
            writer.write(message.data[1:])
        self.open.discard(socket)
        answers.cancel()
        writer.close()
        return socket

    @staticmethod
    async def _answer(socket, reader):
        while data := await reader.read(32 * 1024):
            await socket.send_bytes(b"\x00" + data)
        await socket.close()

    def drop(self):
        """Close every port-forward, as an API server does that ends."""

        async def close():
            for socket in list(self.open):
                await socket.close()

        asyncio.run_coroutine_threadsafe(close(), self.loop).result(20)

    def stop(self):
        """End the server."""
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(20)

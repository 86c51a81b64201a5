"""The image: the model committed into the serving image, proven on the worker's engine, and pushed.

As the seed does it by hand: create a container, copy the models folder in, commit. Nothing of the base image's
configuration changes but `MODEL_NAME` and labels. The docker provider has a hook but no operator for any of this.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from slipway import __version__
from slipway.errors import (
    EngineUnreachable,
    ImageBuildFailed,
    ImagePushRefused,
    InputRefused,
    ResolveError,
    SmokeTestFailed,
)
from slipway.export import Export
from slipway.prediction import (
    GARBAGE_BODY,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_prediction,
    judge_status,
    judge_version,
)
from slipway.questions import ask, grpc_client
from slipway.release import Release, digest_of
from slipway.store import fetch, read_bytes, read_json
from slipway.verdict import Verdict

ENGINE_TIMEOUT_S = 600  # a commit of a large layer is one answer
SMOKE_TIMEOUT_S = 300  # TensorFlow's start and the load of a large model on a busy worker
SMOKE_LOOK_S = 0.5
SMOKE_FLAGS = ["--max_num_load_retries=0", "--tensorflow_inter_op_parallelism=1", "--tensorflow_intra_op_parallelism=2"]
GRPC_PORT, REST_PORT = 8500, 8501
LAST_LOG_LINES = 15
LABEL_BUILD = "slipway.build"  # finds an image again that this engine has built already

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image on an engine."""

    image_id: str  # sha256:… of its configuration; differs between two commits of equal content
    layer: str  # sha256:… of the model's layer, uncompressed; equal for equal content
    reference: str  # repository:tag
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A smoke test that passed."""

    image: Image
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """An image as the registry holds it."""

    reference: str  # repository@digest
    digest: str  # sha256:… of the manifest
    release_id: str
    version: int


@contextmanager
def engine(release: Release) -> Iterator[Any]:
    """The engine of the release's Docker connection, as `docker.APIClient`, logged in where a registry connection is named."""
    with engine_at(release.engine_conn_id, release.registry_conn_id) as client:
        yield client


@contextmanager
def engine_at(engine_conn_id: str, registry_conn_id: str | None) -> Iterator[Any]:
    """The engine that a connection of type `docker` names by its host (`unix://…` or `tcp://…`).

    Raises InputRefused where a connection is missing or names no engine, EngineUnreachable where none answers.
    """
    from airflow.providers.docker.hooks.docker import DockerHook
    from airflow.sdk.exceptions import AirflowException
    from docker.errors import DockerException

    base_url = engine_url(engine_conn_id)
    try:
        hook = DockerHook(docker_conn_id=registry_conn_id, base_url=base_url, timeout=ENGINE_TIMEOUT_S)
        client = hook.api_client
    except (AirflowException, DockerException) as error:
        raise EngineUnreachable(
            f"engine at {base_url} (connection {engine_conn_id}): {_one_line(error)}. Next: DOCKER_HOST={base_url} docker info"
        ) from error
    try:
        yield client
    finally:
        client.close()


def engine_url(engine_conn_id: str) -> str:
    """The URL of the engine that a Docker connection names. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(engine_conn_id)
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {engine_conn_id}: there is none. Next: create it in Airflow (Admin, Connections), "
            "type docker, host unix:///var/run/docker.sock or tcp://HOST:PORT"
        ) from error
    host = connection.host or ""
    if "://" in host:
        return str(host)
    if connection.schema or host.startswith("/"):
        return f"unix:///{host.lstrip('/')}"
    raise InputRefused(
        f"connection {engine_conn_id}: its host {host!r} names no engine. Next: unix:///var/run/docker.sock or tcp://HOST:PORT"
    )


def resolve_base(client: Any, reference: str) -> str:
    """The digest that an image reference has now (sha256:…), as the engine sees the registry; else as it has it.

    Raises ResolveError with the engine's words.
    """
    from docker.errors import APIError, ImageNotFound

    try:
        return str(client.inspect_distribution(reference)["Descriptor"]["digest"])
    except APIError as error:
        with suppress(ImageNotFound):
            for known in client.inspect_image(reference)["RepoDigests"]:
                log.warning("base image %s: the registry did not answer, the engine has %s", reference, known)
                return str(known.split("@", 1)[1])
        raise ResolveError(
            f"base image {reference}: {_one_line(error)}. Next: check image.base, or what the engine reaches: docker pull {reference}"
        ) from error


def build_key(release: Release, export: Export) -> str:
    """sha256:… of all that decides the image; an engine that has an image with this label need not build it again."""
    return digest_of(
        [release.repository, release.base_digest, export.content_hash, export.version, plan_labels(release, export)]
    )


def plan_labels(release: Release, export: Export) -> dict[str, str]:
    """The labels that the image carries: OCI's own, and ours."""
    return {
        "org.opencontainers.image.title": release.model,
        "org.opencontainers.image.source": release.source.url,
        "org.opencontainers.image.revision": release.source.revision,
        "org.opencontainers.image.version": str(export.version),
        "org.opencontainers.image.base.name": release.base_image,
        "org.opencontainers.image.base.digest": release.base_digest,
        "slipway.content": export.content_hash,
        "slipway.exporter": release.exporter,
        "slipway.package": __version__,
    }


def plan_changes(release: Release, export: Export) -> list[str]:
    """The commit's changes, in the Dockerfile's words."""
    labels = {**plan_labels(release, export), LABEL_BUILD: build_key(release, export)}
    return [f"ENV MODEL_NAME={release.model}", *(f"LABEL {key}={json.dumps(value)}" for key, value in labels.items())]


def ensure_image(client: Any, release: Release, export: Export) -> Image:
    """The image of this export on this engine, built if the engine does not have it.

    Raises ImageBuildFailed; no container stays behind.
    """
    key = build_key(release, export)
    if not release.force:
        for known in client.images(filters={"label": f"{LABEL_BUILD}={key}"}):
            log.info("image: the engine has it already: %s", known["Id"])
            return _image(client, known["Id"], release, export)
    return build_image(client, release, export)


def has_image(client: Any, image: Image) -> bool:
    """Whether this engine has the image."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(image.image_id)
    except ImageNotFound:
        return False
    return True


def build_image(client: Any, release: Release, export: Export) -> Image:
    """Create a container of the base image, copy the model in, commit. Raises ImageBuildFailed."""
    from docker.errors import DockerException

    try:
        ensure_base(client, release)
        base_config = client.inspect_image(release.base_reference)[
            "Config"
        ]  # not the container's own, hostname and all
        with _container(client, release.build_container, image=release.base_reference) as container:
            _copy_model(client, container, export)
            done = client.commit(
                container,
                repository=release.repository,
                tag=release.tag(export.version, export.content_hash),
                changes=plan_changes(release, export),
                conf=base_config,
            )
    except DockerException as error:
        raise ImageBuildFailed(
            f"image {release.repository}: {_one_line(error)}. Next: docker info, df -h, then clear build_image"
        ) from error
    return _image(client, done["Id"], release, export)


def ensure_base(client: Any, release: Release) -> None:
    """Pull the base image by digest where the engine lacks it."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(release.base_reference)
    except ImageNotFound:
        log.info("image: pulling %s", release.base_reference)
        client.pull(release.base_reference)


def _copy_model(client: Any, container: str, export: Export) -> None:
    with tempfile.TemporaryDirectory(prefix="slipway-image-") as scratch:
        layer = fetch(export.model_uri, Path(scratch) / "model.tar")
        with layer.open("rb") as reader:
            if not client.put_archive(container, "/", reader):
                raise ImageBuildFailed(
                    f"container {container}: the engine did not take the model. Next: docker info, df -h"
                )


@contextmanager
def _container(client: Any, name: str, **config: Any) -> Iterator[str]:
    """A container of this name, gone afterwards; one that a killed task left is removed first."""
    from docker.errors import NotFound

    with suppress(NotFound):
        client.remove_container(name, force=True, v=True)
    container = client.create_container(name=name, **config)["Id"]
    try:
        yield container
    finally:
        with suppress(NotFound):
            client.remove_container(container, force=True, v=True)


def _image(client: Any, image_id: str, release: Release, export: Export) -> Image:
    found = client.inspect_image(image_id)
    return Image(
        image_id=found["Id"],
        layer=found["RootFS"]["Layers"][-1],
        reference=f"{release.repository}:{release.tag(export.version, export.content_hash)}",
        version=export.version,
    )


def smoke_test(client: Any, release: Release, export: Export, image: Image) -> Proof:
    """Run the image on the engine as the cluster will, and hold it to its promises over REST and gRPC.

    Raises SmokeTestFailed with the server's last lines; no container stays behind.
    """
    from docker.errors import DockerException

    try:
        with _container(client, release.smoke_container, **_smoke_config(client, release, image)) as container:
            client.start(container)
            try:
                verdicts = _question(client, container, release, export)
            except SmokeTestFailed as error:
                said = client.logs(container, tail=LAST_LOG_LINES).decode(errors="replace").strip()
                log.error("smoke test: the server's last lines:\n%s", said)  # noqa: TRY400 - the server's lines, not ours
                last = said.splitlines()[-1] if said else "nothing"
                raise SmokeTestFailed(f"image {image.reference}: {error}. The server said last: {last}") from error
    except DockerException as error:
        raise SmokeTestFailed(f"image {image.reference}: {_one_line(error)}. Next: docker info") from error
    return Proof(image=image, verdicts=verdicts)


def _smoke_config(client: Any, release: Release, image: Image) -> dict[str, Any]:
    """The container as the Deployment's security context would run it, its ports on the engine's own address."""
    address = "127.0.0.1" if _engine_host(release) == "127.0.0.1" else "0.0.0.0"  # noqa: S104 - a remote engine's ports must be reached
    return {
        "image": image.image_id,
        "command": SMOKE_FLAGS,
        "user": "1000:1000",
        "ports": [GRPC_PORT, REST_PORT],
        "host_config": client.create_host_config(
            port_bindings={GRPC_PORT: (address,), REST_PORT: (address,)},
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - inside the container
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        ),
    }


def _engine_host(release: Release) -> str:
    url = urlparse(engine_url(release.engine_conn_id))
    return url.hostname if url.scheme in {"tcp", "http", "https"} and url.hostname else "127.0.0.1"


def _question(client: Any, container: str, release: Release, export: Export) -> tuple[Verdict, ...]:
    """Every question of the smoke test, in order; the first that fails raises SmokeTestFailed."""
    ports = client.inspect_container(container)["NetworkSettings"]["Ports"]
    host = _engine_host(release)
    rest, grpc_port = (ports[f"{port}/tcp"][0]["HostPort"] for port in (REST_PORT, GRPC_PORT))
    base_url, path = f"http://{host}:{rest}", release.version_path(export.version)
    available = _await_available(client, container, export.version, lambda: ask(base_url, path))
    cases = cases_from(read_json(export.golden_uri))
    answers = [judge_answer(case, ask(base_url, f"{path}:predict", case.rest_body)) for case in cases]
    garbage = judge_garbage(ask(base_url, f"{path}:predict", GARBAGE_BODY))
    spoken = _question_grpc(f"{host}:{grpc_port}", cases, export)
    return _all_passed([available, *answers, garbage, *spoken])


def _question_grpc(address: str, cases: Iterable[GoldenCase], export: Export) -> list[Verdict]:
    import grpc

    verdicts: list[Verdict] = []
    with grpc_client(address, read_bytes(export.descriptors_uri)) as client:
        for case in cases:
            try:
                said = client.predict(case, export.version)
            except grpc.RpcError as error:
                return [*verdicts, Verdict.failed(f"golden case {case.name!r} over gRPC: {_one_line(error)}")]
            verdicts += [
                judge_prediction(case, said.label, said.confidence),
                judge_version(export.version, said.version),
            ]
    return verdicts


def _await_available(client: Any, container: str, version: int, look: Callable[[], Any]) -> Verdict:
    """Look until the version is AVAILABLE, its load failed, the container ended, or time is up."""
    deadline = time.monotonic() + SMOKE_TIMEOUT_S
    while True:
        verdict = judge_status(version, look())
        state = client.inspect_container(container)["State"]
        if verdict.outcome == "wait" and not state["Running"]:
            verdict = Verdict.failed(
                f"the server ended with status {state['ExitCode']} before version {version} was AVAILABLE"
            )
        if verdict.outcome == "wait" and time.monotonic() > deadline:
            verdict = Verdict.failed(f"{verdict.reason} after {SMOKE_TIMEOUT_S} s")
        if verdict.outcome != "wait":
            return verdict
        time.sleep(SMOKE_LOOK_S)


def _all_passed(verdicts: list[Verdict]) -> tuple[Verdict, ...]:
    for verdict in verdicts:
        log.info("smoke test: %s", verdict)
    for verdict in verdicts:
        if verdict.outcome != "pass":
            raise SmokeTestFailed(verdict.reason)
    return tuple(verdicts)


def push_image(client: Any, release: Release, export: Export, proof: Proof) -> Pushed:
    """Push the image that passed the smoke test, and read its digest back from the registry.

    An engine that lacks it builds it again; that one is another image, so it is smoke-tested first.
    Raises ImagePushRefused with the registry's words.
    """
    from docker.errors import DockerException

    image = proof.image
    if not has_image(client, image):
        log.warning("push: this engine lacks %s, building and proving it here", image.image_id)
        image = smoke_test(client, release, export, ensure_image(client, release, export)).image
    repository, tag = image.reference.rsplit(":", 1)
    try:
        client.tag(image.image_id, repository, tag, force=True)
        sent = judge_push(client.push(repository, tag=tag, stream=True, decode=True))
        held = client.inspect_distribution(f"{repository}@{sent}")["Descriptor"]["digest"]
    except DockerException as error:
        raise ImagePushRefused(
            f"push {image.reference}: {_one_line(error)}. Next: docker push {image.reference}"
        ) from error
    except ImagePushRefused as error:
        raise ImagePushRefused(f"push {image.reference}: {error}. Next: docker push {image.reference}") from error
    if held != sent:
        raise ImagePushRefused(f"push {image.reference}: sent {sent}, the registry holds {held}. Next: clear push")
    return Pushed(
        reference=release.reference(held), digest=held, release_id=release.release_id(held), version=image.version
    )


def judge_push(events: Iterable[dict[str, Any]]) -> str:
    """The digest that a push stream ends with. Raises ImagePushRefused for an error in it: the engine's call never does."""
    digest, layers = None, Counter[str]()
    for event in events:
        layers[event.get("status", "")] += 1
        if "error" in event or "errorDetail" in event:
            raise ImagePushRefused(str(event.get("error") or event["errorDetail"].get("message")))
        digest = event.get("aux", {}).get("Digest", digest)
    if digest is None:
        raise ImagePushRefused("the push ended without a digest")
    log.info("push: %d layers sent, %d were there", layers["Pushed"], layers["Layer already exists"])
    return str(digest)


def _one_line(error: BaseException) -> str:
    """An error's own words in one line."""
    words = getattr(error, "explanation", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())

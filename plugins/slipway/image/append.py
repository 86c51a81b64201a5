"""Builds the image in the registry: the base image's layers, and one more with the model. No engine is needed.

The base's layers are mounted if they are in the same registry, else copied once. Of the base image's configuration, only
`MODEL_NAME`, labels, and what names the new layer change. The same export on the same base gives the same image, to the byte.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from slipway.errors import (
    ImagePushRefused,
    RegistryLoginRefused,
    RegistryUnreachable,
    RegistryUnusable,
    ResolveError,
    SlipwayError,
)
from slipway.facts import Export, JsonObject, Pushed
from slipway.image.build import keyed_image_labels
from slipway.image.engine import judge_base
from slipway.image.registry import DIGEST, INDEXES, MANIFESTS, Manifest, Repository, repository_with
from slipway.image.registry_login import NAME_A_LOGIN, Login, find_login, registry_of
from slipway.names import repository_of
from slipway.records.store import open_stored
from slipway.release import Release
from slipway.runtimes import Runtime
from slipway.scratch import scratch_folder

PLATFORM = ("linux", "amd64")  # of an index with several; both runtimes' images are for it
OCI, DOCKER = MANIFESTS
LAYER_TYPES = {
    OCI: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
CHUNK = 1024 * 1024
FASTEST = 1  # gzip's level: weights hardly become smaller at a higher one
LOGIN_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
ONLY_WRITTEN = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED,
}  # a repository that may not be read

log = logging.getLogger(__name__)


class _Descriptor(BaseModel):
    """What a registry says of a blob or manifest."""

    digest: Annotated[str, Field(pattern=rf"^{DIGEST.pattern}$")]
    size: Annotated[int, Field(ge=0)] = 0
    mediaType: str = ""  # noqa: N815 - OCI's name
    platform: dict[str, Any] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether it is of PLATFORM."""
        platform = self.platform or {}
        return (platform.get("os"), platform.get("architecture")) == PLATFORM


class _Index(BaseModel):
    manifests: list[_Descriptor]


class _Manifest(BaseModel):
    config: _Descriptor
    layers: list[_Descriptor]


class _Layers(BaseModel):
    diff_ids: list[str]


class _Inner(BaseModel):
    Env: list[str] | None = None
    Labels: dict[str, str] | None = None


class _Config(BaseModel):
    """The fields of an image's configuration that are changed."""

    config: _Inner | None = None
    rootfs: _Layers
    history: list[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An image for one platform, as its registry has it."""

    manifest: Manifest
    config: JsonObject

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image."""
        return (self.config.get("config") or {}).get("Labels") or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer in a file, compressed."""

    file: Path
    digest: str  # sha256:… of the file
    diff_id: str  # sha256:… of what is compressed in it
    size: int  # of the file, in bytes


def pin_base(reference: str, login: Login | None, runtime: Runtime) -> str:
    """The digest (sha256:…) of a base image, from its registry; it is one of this runtime.

    Raises RegistryLoginRefused, RegistryUnreachable, ResolveError, InputRefused.
    """
    repository = repository_of(reference)
    what = f"base image {reference}"
    with _base_repository(repository, login) as found, _refusals(what, login, ResolveError):
        pinned = found.manifest(reference.removeprefix(repository).lstrip(":@") or "latest")
        if pinned is None:
            raise ResolveError(f"{what}: its registry has no such image. Next: check image.base")
        base = _read_base(found, pinned, what)
    judge_base(reference, base.labels, runtime)
    return pinned.digest


def check_repository(repository: str, login: Login | None) -> None:
    """Check, before an export that may take hours, that the worker reaches the repository's registry and may log in.

    The repository need not exist yet. Only the upload can tell whether pushing is allowed.
    Raises RegistryLoginRefused, RegistryUnreachable.
    """
    with _refusals(f"registry of {repository}", login, ImagePushRefused):
        try:
            with repository_with(repository, login) as found:
                found.manifest("latest")
        except RegistryUnusable as error:
            if error.status not in ONLY_WRITTEN:
                raise
            log.info("resolve: registry of %s: %s", repository, error)


def append_image(release: Release, export: Export) -> Pushed:
    """Send the image to the registry, and check the digest that it then has.

    Raises ImagePushRefused, ResolveError, RegistryLoginRefused, RegistryUnreachable, InputRefused, StoreError.
    """
    from slipway.image.uploads import Uploads

    with scratch_folder("image") as scratch:
        layer = compress_layer(export, scratch)
        login = find_login(release.registry_conn_id, release.repository, release.base_image)
        what = f"push {release.repository}"
        with (
            _base_repository(repository_of(release.base_image), login) as source,
            _refusals(what, login, ImagePushRefused),
            Uploads(release.repository, login) as target,
        ):
            base = _read_base(source, _needed(source.manifest(release.base_digest), release), release.base_reference)
            judge_base(release.base_reference, base.labels, release.served_by)
            brought = sum(_bring_layer(source, target, one, release, scratch) for one in base.manifest.data["layers"])
            copied = target.sent
            config = json.dumps(plan_image_config(base.config, release, export, layer.diff_id), sort_keys=True)
            described = scratch / "config.json"
            described.write_text(config, encoding="utf-8")
            image_id = _sha256(config.encode())
            target.send(layer.file, layer.digest)
            target.send(described, image_id)
            manifest = json.dumps(plan_manifest(base.manifest, image_id, len(config.encode()), layer), sort_keys=True)
            tag = release.tag(export.version, image_id)
            target.send_manifest(tag, manifest)
        digest = _sha256(manifest.encode())
        _check_held(release, login, tag, digest)
    sent = target.sent - copied
    log.info("push: %d bytes sent; %d layers of the base mounted or copied, %d bytes", sent, brought, copied)
    return Pushed(
        reference=release.reference(digest),
        digest=digest,
        release_id=release.release_id(digest),
        version=export.version,
        sent=sent,
    )


def compress_layer(export: Export, folder: Path) -> Layer:
    """The export's layer from the store, compressed as it is read. The same content gives the same bytes. Raises StoreError."""
    place, inner, outer = folder / "model.tar.gz", hashlib.sha256(), hashlib.sha256()
    with (
        open_stored(export.model_uri) as reader,
        place.open("wb") as writer,
        gzip.GzipFile(
            fileobj=_Hashing(writer, outer), mode="wb", filename="", mtime=0, compresslevel=FASTEST
        ) as packer,
    ):
        while chunk := reader.read(CHUNK):
            inner.update(chunk)
            packer.write(chunk)
    return Layer(
        file=place,
        digest=f"sha256:{outer.hexdigest()}",
        diff_id=f"sha256:{inner.hexdigest()}",
        size=place.stat().st_size,
    )


def plan_image_config(base: JsonObject, release: Release, export: Export, diff_id: str) -> JsonObject:
    """The image's configuration: the base's, with the model's name, the labels and the layer."""
    config = deepcopy(base)
    inner = config.get("config") or {}
    name = f"MODEL_NAME={release.model}"
    named = [name if one.startswith("MODEL_NAME=") else one for one in inner.get("Env") or []]
    config["config"] = {
        **inner,
        "Env": named if name in named else [*named, name],
        "Labels": {**(inner.get("Labels") or {}), **keyed_image_labels(release, export)},
    }
    config["rootfs"]["diff_ids"] = [*config["rootfs"]["diff_ids"], diff_id]
    said = f"{release.model}, version {export.version}"
    step = {"created": config.get("created", "1970-01-01T00:00:00Z"), "created_by": "slipway", "comment": said}
    config["history"] = [*(config.get("history") or []), step]
    return config


def plan_manifest(base: Manifest, image_id: str, size: int, layer: Layer) -> JsonObject:
    """The image's manifest, of the base's media type."""
    added = {"mediaType": LAYER_TYPES[base.media_type], "digest": layer.digest, "size": layer.size}
    return {
        "schemaVersion": 2,
        "mediaType": base.media_type,
        "config": {"mediaType": base.data["config"]["mediaType"], "digest": image_id, "size": size},
        "layers": [*base.data["layers"], added],
    }


def _base_repository(repository: str, login: Login | None) -> AbstractContextManager[Repository]:
    """The base image's repository, with the login if it may go to that registry."""
    return repository_with(repository, login if login and registry_of(repository) in login.hosts else None)


def _needed(manifest: Manifest | None, release: Release) -> Manifest:
    if manifest is None:
        raise ResolveError(
            f"base image {release.base_reference}: its registry has it no more. Next: trigger again, which pins it anew"
        )
    return manifest


def _read_base(repository: Repository, manifest: Manifest, what: str) -> BaseImage:
    """The image of a manifest; of an index, the image for PLATFORM. Raises ResolveError."""
    try:
        if manifest.media_type in INDEXES:
            of_platform = [one.digest for one in _Index.model_validate(manifest.data).manifests if one.is_wanted]
            chosen = repository.manifest(of_platform[0]) if of_platform else None
            if chosen is None:
                raise ResolveError(f"{what}: has no image for {'/'.join(PLATFORM)}. Next: name another image.base")
            manifest = chosen
        if manifest.media_type not in LAYER_TYPES:
            raise ResolveError(f"{what}: is no image ({manifest.media_type[:100]!r}). Next: name another image.base")
        config = repository.blob_json(_Manifest.model_validate(manifest.data).config.digest)
        _Config.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ResolveError(
            f"{what}: its manifest or configuration is not valid: {where}: {first['msg']}. Next: name another image.base"
        ) from error
    return BaseImage(manifest=manifest, config=config)


def _bring_layer(source: Repository, target: Any, layer: JsonObject, release: Release, scratch: Path) -> bool:
    """Bring one of the base's layers to the image's repository; False if it is there already."""
    digest = str(layer["digest"])
    if target.has(digest):
        return False
    base = repository_of(release.base_image)
    if registry_of(base) == registry_of(release.repository) and target.mount(digest, base):
        return True
    place = scratch / "base-layer"
    source.fetch_blob(digest, int(layer["size"]), place)
    target.send(place, digest)
    place.unlink()
    return True


def _check_held(release: Release, login: Login | None, tag: str, digest: str) -> None:
    """Check that the registry has under the tag what was sent. Raises ImagePushRefused."""
    with (
        _refusals(f"push {release.repository}", login, ImagePushRefused),
        repository_with(release.repository, login) as target,
    ):
        held = target.manifest(tag)
    if held is None or held.digest != digest:
        raise ImagePushRefused(
            f"push {release.repository}:{tag}: sent {digest}, but the registry has {held and held.digest}. Next: clear push"
        )


@contextmanager
def _refusals(what: str, login: Login | None, otherwise: type[SlipwayError]) -> Iterator[None]:
    """Raise a registry's refusal as the error that says what is to be done."""
    try:
        yield
    except RegistryUnusable as error:
        if error.status is None:  # what the registry answers makes no sense, and the error says what to do
            raise otherwise(f"{what}: {error}") from error
        said = str(error).partition(". Next: ")[0]
        if error.status in LOGIN_REFUSED:
            raise RegistryLoginRefused(f"{what}: {said}. Next: {login.fix if login else NAME_A_LOGIN}") from error
        if error.status in {0, HTTPStatus.TOO_MANY_REQUESTS} or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RegistryUnreachable(f"{what}: {said}. Next: curl the registry's /v2/ from the worker") from error
        raise otherwise(f"{what}: {said}. Next: check image.repository and the rights on it") from error


class _Hashing:
    """A file that is hashed as it is written."""

    def __init__(self, file: Any, hashed: Any) -> None:
        self.file, self.hashed = file, hashed

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.hashed.update(data)
        return int(self.file.write(data))

    def flush(self) -> None:
        """Write what is buffered."""
        self.file.flush()


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

"""Builds the image: the serving image with the model in it.

Creates a container, copies the models folder into it, and commits it. Of the base image's configuration, only `MODEL_NAME`
and labels change. The docker provider has a hook, but no operator for this.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway import __version__
from slipway.errors import ImageBuildFailed
from slipway.facts import Export, Image
from slipway.image.docker_errors import engine_words, image_build_failed
from slipway.image.engine import judge_base, log_in, throwaway_container
from slipway.image.registry_login import find_login
from slipway.names import digest_of, former_store_id
from slipway.records.store import Store, fetch_from_store
from slipway.release import Release
from slipway.runtimes import IMAGE_LABEL_RUNTIME
from slipway.scratch import scratch_folder

IMAGE_LABEL_TITLE = "org.opencontainers.image.title"  # the model's name
IMAGE_LABEL_STORE = "slipway.store"  # the artifact store's own id: installations may share an engine and a registry
IMAGE_LABEL_BUILD = "slipway.build"  # the build key, by which an engine's image is found again

log = logging.getLogger(__name__)


def image_build_key(release: Release, export: Export) -> str:
    """sha256:… of everything that determines the image. An engine with an image of this key need not build it again."""
    return digest_of(
        [
            release.repository,
            release.base_digest,
            export.content_hash,
            export.version,
            plan_image_labels(release, export),
        ]
    )


def plan_image_labels(release: Release, export: Export) -> dict[str, str]:
    """The image's labels: those of the OCI, and Slipway's own."""
    card, runtime = export.card, {}
    if release.runtime_inputs:
        runtime = {IMAGE_LABEL_RUNTIME: release.runtime, "slipway.precision": release.precision}
    return {
        IMAGE_LABEL_TITLE: release.model,
        "org.opencontainers.image.source": release.source.url,
        "org.opencontainers.image.revision": release.source.revision,
        "org.opencontainers.image.version": str(export.version),
        "org.opencontainers.image.base.name": release.base_image,
        "org.opencontainers.image.base.digest": release.base_digest,
        "slipway.content": export.content_hash,
        "slipway.exporter": release.exporter,
        "slipway.package": __version__,
        IMAGE_LABEL_STORE: release.store_id,
        **runtime,
        **({"slipway.card": card.digest, "slipway.parity": card.parity} if card else {}),
    }


def keyed_image_labels(release: Release, export: Export) -> dict[str, str]:
    """The image's labels with its build key, which is made of the others."""
    return {**plan_image_labels(release, export), IMAGE_LABEL_BUILD: image_build_key(release, export)}


def plan_image_changes(release: Release, export: Export) -> list[str]:
    """The commit's changes, as Dockerfile instructions."""
    labels = keyed_image_labels(release, export)
    return [f"ENV MODEL_NAME={release.model}", *(f"LABEL {key}={json.dumps(value)}" for key, value in labels.items())]


def ensure_image(client: Any, release: Release, export: Export) -> Image:
    """The image of this export on this engine; built if the engine does not have it.

    Raises ImageBuildFailed. No container is left behind.
    """
    key = image_build_key(release, export)
    if not release.force:
        for known in client.images(filters={"label": f"{IMAGE_LABEL_BUILD}={key}"}):
            log.info("image: the engine has it: %s", known["Id"])
            return _tagged(client, known["Id"], release, export)
    return build_image(client, release, export)


def has_image(client: Any, image: Image) -> bool:
    """Whether this engine has the image."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(image.image_id)
    except ImageNotFound:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The owner of images: a model in one store."""

    model: str
    store_id: str  # the store's own id
    former_id: str  # the id that an earlier Slipway derived from the URI; a store on another machine may have the same

    def owns(self, labels: Mapping[str, str], *, recorded: bool) -> bool:
        """Whether an image belongs to the owner, by its labels. In doubt, it does not.

        An image with the former id belongs to the owner only if it is `recorded` in the store.
        """
        label = labels.get(IMAGE_LABEL_STORE)
        known = label == self.store_id or (label == self.former_id and recorded)
        return labels.get(IMAGE_LABEL_TITLE) == self.model and known


def owner_of_images(release: Release) -> Owner:
    """The owner of a release's images. Raises StoreError."""
    store = Store(release.store)
    return Owner(model=release.model, store_id=store.identity(), former_id=former_store_id(store.uri))


def remove_images(client: Any, owner: Owner, *, keep: frozenset[str], recorded: frozenset[str]) -> list[str]:
    """Remove the owner's images from the engine, except those in `keep` (image ids or registry digests, sha256:…).

    `recorded` are the digests in the store's records. Images that a container uses are kept. Returns the ids of the removed
    images.
    """
    from docker.errors import APIError

    removed = []
    for found in client.images(filters={"label": [f"{IMAGE_LABEL_TITLE}={owner.model}"]}):
        digests = {known.split("@", 1)[1] for known in found["RepoDigests"] or () if "@" in known}
        ours = owner.owns(found["Labels"] or {}, recorded=bool(recorded & digests))
        if ours and not keep & {found["Id"], *digests}:
            try:
                client.remove_image(found["Id"], force=True)
                removed.append(str(found["Id"]))
            except APIError as error:
                log.warning("image: %s is kept: %s", found["Id"], engine_words(error))
    return removed


def build_image(client: Any, release: Release, export: Export) -> Image:
    """Create a container of the base image, copy the model into it, commit it. Raises ImageBuildFailed."""
    from docker.errors import DockerException

    try:
        ensure_base(client, release)
        base = client.inspect_image(release.base_reference)
        judge_base(release.base_reference, base["Config"].get("Labels") or {}, release.served_by)
        with throwaway_container(client, release.build_container, image=release.base_reference) as container:
            _copy_model(client, container, export)
            done = client.commit(
                container,
                changes=plan_image_changes(release, export),
                conf=base["Config"],  # not the container's, which has its hostname
            )
    except DockerException as error:
        raise image_build_failed(f"image {release.repository}", error) from error
    return _tagged(client, done["Id"], release, export)


def ensure_base(client: Any, release: Release) -> None:
    """Pull the base image by digest if the engine does not have it."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(release.base_reference)
    except ImageNotFound:
        log.info("image: pulling %s", release.base_reference)
        log_in(client, find_login(release.registry_conn_id, release.repository, release.base_image))
        client.pull(release.base_reference)


def _copy_model(client: Any, container: str, export: Export) -> None:
    with scratch_folder("image") as scratch:
        layer = fetch_from_store(export.model_uri, scratch / "model.tar")
        with layer.open("rb") as reader:
            if not client.put_archive(container, "/", reader):
                raise ImageBuildFailed(
                    f"container {container}: the engine did not accept the model. Next: docker info, df -h"
                )


def _tagged(client: Any, image_id: str, release: Release, export: Export) -> Image:
    """The image, under a tag of its own: the engine's clean-up would remove an image without a tag."""
    from docker.errors import DockerException

    try:
        found = client.inspect_image(image_id)
        tag = release.tag(export.version, found["Id"])
        client.tag(found["Id"], release.repository, tag, force=True)
    except DockerException as error:
        raise image_build_failed(f"image {release.repository}", error) from error
    return Image(
        image_id=found["Id"],
        layer=found["RootFS"]["Layers"][-1],
        reference=f"{release.repository}:{tag}",
        version=export.version,
    )

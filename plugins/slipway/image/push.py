"""Pushes an image, and checks the digest that the registry then has."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from slipway.errors import ImagePushRefused
from slipway.facts import Export, Image, Pushed
from slipway.image.build import ensure_image, has_image
from slipway.image.docker_errors import image_push_refused
from slipway.image.engine import log_in
from slipway.image.registry_login import find_login
from slipway.image.smoke_test import smoke_test
from slipway.release import Release

log = logging.getLogger(__name__)


def push_image(client: Any, release: Release, export: Export, image: Image) -> Pushed:
    """Push the image, and read its digest back from the registry.

    If this engine does not have the image, it is built again and, because that is a new image, smoke-tested again.
    Raises ImagePushRefused, RegistryLoginRefused, RegistryUnreachable.
    """
    from docker.errors import DockerException

    if not has_image(client, image):
        log.warning("push: this engine does not have %s: building and testing it here", image.image_id)
        image = smoke_test(client, release, export, ensure_image(client, release, export)).image
    repository, tag = image.reference.rsplit(":", 1)
    login = find_login(
        release.registry_conn_id, repository
    )  # not before the build, which may take longer than a token is valid
    log_in(client, login)
    try:
        client.tag(image.image_id, repository, tag, force=True)
        sent = judge_push(client.push(repository, tag=tag, stream=True, decode=True))
        held = client.inspect_distribution(f"{repository}@{sent}")["Descriptor"]["digest"]
    except (DockerException, ImagePushRefused) as error:
        raise image_push_refused(image.reference, error, login) from error
    if held != sent:
        raise ImagePushRefused(f"push {image.reference}: sent {sent}, but the registry has {held}. Next: clear push")
    return Pushed(
        reference=release.reference(held), digest=held, release_id=release.release_id(held), version=image.version
    )


def judge_push(events: Iterable[dict[str, Any]]) -> str:
    """The image's digest, from the events of a push.

    Raises ImagePushRefused for an error among the events: the client does not raise for it.
    """
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

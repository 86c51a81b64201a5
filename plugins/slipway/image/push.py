"""The push: only an image that passed the smoke test, proven by the digest that the registry then holds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from slipway.errors import ImagePushRefused
from slipway.facts import Export, Proof, Pushed
from slipway.image.build import ensure_image, has_image
from slipway.image.engine import log_in, one_line, refused_by_registry
from slipway.image.registry_login import find_login
from slipway.image.smoke_test import smoke_test
from slipway.release import Release

GOOGLE_RIGHT = "artifactregistry."  # in the words of a registry that misses a right of IAM

log = logging.getLogger(__name__)


def push_image(client: Any, release: Release, export: Export, proof: Proof) -> Pushed:
    """Push the image that passed the smoke test, and read its digest back from the registry.

    An engine that lacks it builds it again; that one is another image, so it is smoke-tested first.
    Raises ImagePushRefused with the registry's words, RegistryLoginRefused, RegistryUnreachable.
    """
    from docker.errors import DockerException

    image = proof.image
    if not has_image(client, image):
        log.warning("push: this engine lacks %s, building and proving it here", image.image_id)
        image = smoke_test(client, release, export, ensure_image(client, release, export)).image
    repository, tag = image.reference.rsplit(":", 1)
    login = find_login(release.registry_conn_id, repository)  # only now: a build may outlive a token
    log_in(client, login)
    try:
        client.tag(image.image_id, repository, tag, force=True)
        sent = judge_push(client.push(repository, tag=tag, stream=True, decode=True))
        held = client.inspect_distribution(f"{repository}@{sent}")["Descriptor"]["digest"]
    except (DockerException, ImagePushRefused) as error:
        what = f"push {image.reference}"
        words = one_line(error)
        mend = login.mend if login and GOOGLE_RIGHT in words else f"docker push {image.reference}"
        raise refused_by_registry(what, error, login) or ImagePushRefused(f"{what}: {words}. Next: {mend}") from error
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

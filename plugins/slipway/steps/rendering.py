"""Renders a release once, in `resolve`. Every later task reads what `resolve` stored."""

from __future__ import annotations

from dataclasses import replace

from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.policy import Allowed
from slipway.kubernetes.rendered import Rendered, keep_rendered
from slipway.kubernetes.secrets import hash_secrets
from slipway.names import digest_of
from slipway.release import Release
from slipway.steps.preview import render_preview

NOTHING_MORE = Allowed()


def render_release(release: Release, *, allowed: Allowed = NOTHING_MORE, keep: bool = True) -> Release:
    """The release with its manifests and its preview's, rendered and checked; they are stored, unless the run only plans.

    `allowed` is what the Variables let an overlay contain besides what every overlay may.

    Raises ManifestError, before an image is built, and StoreError.
    """
    live = render_manifests(release, allowed=allowed)
    preview = render_preview(release, live) if release.strategy == "preview" else None
    if not keep:
        return replace(release, manifests_hash=digest_of(hash_secrets(live)))
    return keep_rendered(release, Rendered(live=live, preview=preview))

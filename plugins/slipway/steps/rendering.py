"""Renders a release, once: `resolve` does, and every later task reads what it kept."""

from __future__ import annotations

from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.rendered import Rendered, keep_rendered
from slipway.release import Release
from slipway.steps.preview import render_preview


def render_release(release: Release) -> Release:
    """The release with its manifests, and those of its preview, rendered, checked and kept.

    Raises ManifestError, before an image is built, and StoreError.
    """
    live = render_manifests(release)
    preview = render_preview(release, live) if release.strategy == "preview" else None
    return keep_rendered(release, Rendered(live=live, preview=preview))

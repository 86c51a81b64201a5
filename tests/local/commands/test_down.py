"""What `down` removes."""

from local.commands.down import plan_image_removal

IMAGES = [
    {"RepoTags": ["127.0.0.1:28500/slipway-1/vit:v1"], "RepoDigests": ["127.0.0.1:28500/slipway-1/vit@sha256:aa"]},
    {"RepoTags": ["127.0.0.1:28500/slipway-1/vit:<none>"], "RepoDigests": ["127.0.0.1:28500/slipway-1/vit@sha256:bb"]},
    {"RepoTags": None, "RepoDigests": None},
    {"RepoTags": ["127.0.0.1:28500/slipway-12/vit:v1", "alpine:3"], "RepoDigests": []},
]


def test_only_images_of_this_checkout_are_removed():
    """Tags and digests of the checkout's own repository are removed; those of another checkout and of the user are kept."""
    assert plan_image_removal(IMAGES, "127.0.0.1:28500/slipway-1/") == [
        "127.0.0.1:28500/slipway-1/vit:v1",
        "127.0.0.1:28500/slipway-1/vit@sha256:aa",
        "127.0.0.1:28500/slipway-1/vit@sha256:bb",
    ]

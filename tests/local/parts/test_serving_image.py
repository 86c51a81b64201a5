"""The message about an image that cannot be pulled."""

from local.parts.serving_image import reason


def test_reason_is_the_engines_message():
    """The reason of a refused pull is the engine's own message, on one line."""
    assert (
        reason('engine unix:///x: GET /y: 500 {"message":"Get \\"https://r/v2/\\":\\n no such host"}')
        == 'Get "https://r/v2/": no such host'
    )

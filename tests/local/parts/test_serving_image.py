"""The stand-in of TensorFlow Serving: what it is made of, and the message about the image that cannot be pulled."""

from pathlib import Path

from local.parts.server_image import SITE_PACKAGES
from local.parts.serving_image import STAND_IN, reason

PROJECT = Path(__file__).parents[3]


def test_reason_is_the_engines_message():
    """The reason of a refused pull is the engine's own message, on one line."""
    assert (
        reason('engine unix:///x: GET /y: 500 {"message":"Get \\"https://r/v2/\\":\\n no such host"}')
        == 'Get "https://r/v2/": no such host'
    )


def test_image_has_the_protocol_that_both_servers_speak():
    """Its modules and its descriptors are among the packages; the entrypoint is one of its programs."""
    files = STAND_IN.files(PROJECT)
    assert {f"{SITE_PACKAGES}/serving_protocol/{name}" for name in ("rest.py", "descriptors.bin")} <= files.keys()
    assert STAND_IN.entrypoint in files
    assert all(path.is_file() and path.suffix != ".pyc" for path in files.values())

from hashlib import sha256

import pytest

from slipway.errors import ExportError
from slipway.model.golden_images import fetch_golden_image
from slipway.paths import SERVED
from slipway.release import GoldenRequest

IMAGE = "digits-vit/golden/three.png"


def golden(image, sha=None):
    """A golden request for an image."""
    return GoldenRequest(name="three", image=image, sha256=sha, label="3", min_confidence=0.8)


def test_golden_bytes_of_a_file():
    """A golden image next to the model file is read unchanged, and checked against its hash if it has one."""
    data = (SERVED / IMAGE).read_bytes()
    assert data == fetch_golden_image(golden(IMAGE)) == fetch_golden_image(golden(IMAGE, sha256(data).hexdigest()))


def test_golden_bytes_of_a_url(http_server):
    """A golden image by URL is fetched, and checked against its hash."""
    server = http_server((200, "pixels"))
    assert fetch_golden_image(golden(f"{server.url}/three.png", sha256(b"pixels").hexdigest())) == b"pixels"


def test_refused_if_a_golden_image_changed(http_server):
    """An image with another hash than the model file's is refused; the message names the case and both hashes."""
    server = http_server((200, "other"))
    with pytest.raises(
        ExportError, match=rf"golden case three: .* sha256 {sha256(b'other').hexdigest()}, .*{'a' * 64}\. Next: "
    ):
        fetch_golden_image(golden(f"{server.url}/three.png", "a" * 64))


@pytest.mark.parametrize("status", [404, 500])
def test_refused_if_a_golden_url_fails(http_server, status):
    """A URL that responds with an error is refused in one line."""
    server = http_server((status, "no"))
    with pytest.raises(ExportError, match=rf"golden case three: .*{status}.*Next: ") as refusal:
        fetch_golden_image(golden(f"{server.url}/three.png", "a" * 64))
    assert "\n" not in str(refusal.value)


def test_refused_if_the_answer_of_a_golden_url_is_endless(mean_server, monkeypatch):
    """A server that sends one byte after another does not hold the task; nor does one that sends too many."""
    monkeypatch.setattr("slipway.model.golden_images.TOTAL_S", 0.5)
    with pytest.raises(ExportError, match=r"golden case three: http://127.*Next: ") as refusal:
        fetch_golden_image(golden(f"{mean_server.url}/three.png"))
    assert "\n" not in str(refusal.value)
    assert mean_server.sent < 64 * 1024 * 1024


def test_refused_if_a_golden_file_is_missing():
    """A golden image that this worker does not have is named."""
    with pytest.raises(ExportError, match=r"golden case three: include/served/gone\.png: .*Next: "):
        fetch_golden_image(golden("gone.png"))

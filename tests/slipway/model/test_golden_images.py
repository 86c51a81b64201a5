import traceback
from hashlib import sha256

import pytest

from slipway.bounded_http import MAX_REDIRECTS
from slipway.errors import ExportError
from slipway.model.golden_images import fetch_golden_image
from slipway.paths import INCLUDE
from slipway.release import GoldenRequest

IMAGE = "digits-vit/golden/three.png"


def golden(image, sha=None):
    """A golden request for an image."""
    return GoldenRequest(name="three", image=image, sha256=sha, label="3", min_confidence=0.8)


def test_golden_bytes_of_a_file():
    """A golden image next to the model file is read unchanged, and checked against its hash if it has one."""
    data = (INCLUDE / "served" / IMAGE).read_bytes()
    assert (
        data
        == fetch_golden_image(golden(IMAGE), "m")
        == fetch_golden_image(golden(IMAGE, sha256(data).hexdigest()), "m")
    )


def test_golden_bytes_of_a_url(http_server):
    """A golden image by URL is fetched, and checked against its hash."""
    server = http_server((200, "pixels"))
    assert fetch_golden_image(golden(f"{server.url}/three.png", sha256(b"pixels").hexdigest()), "m") == b"pixels"


def test_refused_if_a_golden_image_changed(http_server):
    """An image with another hash than the model file's is refused; the message does not say what was found."""
    server = http_server((200, "other"))
    with pytest.raises(ExportError, match=rf"golden case three: .*: its sha256 is not {'a' * 64}, .*Next: ") as refusal:
        fetch_golden_image(golden(f"{server.url}/three.png", "a" * 64), "m")
    assert sha256(b"other").hexdigest() not in str(refusal.value)


def test_refused_if_a_golden_url_leads_elsewhere(redirecting_server, http_server):
    """A redirect on the same host is followed, a few times. One to another host, or another port, is refused unasked."""
    circle, other = redirecting_server(""), http_server((200, "pixels"))
    with pytest.raises(ExportError, match=r"307 .*Next: "):
        fetch_golden_image(golden(f"{circle.url}/three.png"), "m")
    assert len(circle.seen) == MAX_REDIRECTS
    server = redirecting_server(f"{other.url}/token")
    with pytest.raises(ExportError, match=r"redirects to another host, 127\.0\.0\.1\. Next: ") as refusal:
        fetch_golden_image(golden(f"{server.url}/away.png"), "m")
    assert "token" not in str(refusal.value)
    assert other.seen == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "2852039166"])
def test_refused_if_a_golden_url_is_link_local(host):
    """Clouds serve a machine's own credentials at a link-local address: it is never asked, however it is written."""
    with pytest.raises(ExportError, match="is a link-local address"):
        fetch_golden_image(golden(f"http://{host}/latest"), "m")


@pytest.mark.parametrize("status", [404, 500])
def test_refused_if_a_golden_url_fails(http_server, status):
    """A URL that responds with an error is refused in one line."""
    server = http_server((status, "no"))
    with pytest.raises(ExportError, match=rf"golden case three: .*{status}.*Next: ") as refusal:
        fetch_golden_image(golden(f"{server.url}/three.png", "a" * 64), "m")
    assert "\n" not in str(refusal.value)


def test_refused_if_the_answer_of_a_golden_url_is_endless(mean_server, monkeypatch):
    """A server that sends one byte after another does not hold the task; nor does one that sends too many."""
    monkeypatch.setattr("slipway.model.golden_images.TOTAL_S", 0.5)
    with pytest.raises(ExportError, match=r"golden case three: http://127.*Next: ") as refusal:
        fetch_golden_image(golden(f"{mean_server.url}/three.png"), "m")
    assert "\n" not in str(refusal.value)
    assert mean_server.sent < 64 * 1024 * 1024


def test_refused_if_a_golden_file_is_missing():
    """A golden image that this worker does not have is named."""
    with pytest.raises(ExportError, match=r"golden case three: include/served/gone\.png: .*Next: "):
        fetch_golden_image(golden("gone.png"), "m")


@pytest.fixture
def signed(users_folder):
    """Writes the model file `m` with a golden image at this URL with a signature; returns its golden request."""

    def make(url, data):
        digest = sha256(data).hexdigest()
        case = f"{{name: three, image: '{url}?sig=secret', sha256: '{digest}', label: '3'}}"
        (users_folder / "served" / "m.yaml").write_text(f"source: {{folder: x}}\ngate: {{golden: [{case}]}}\n")
        return golden(url, digest)

    return make


def test_the_query_is_sent_though_the_request_has_none(http_server, signed):
    """It is read from the model file when the image is fetched."""
    server = http_server((200, "pixels"))
    assert fetch_golden_image(signed(f"{server.url}/three.png", b"pixels"), "m") == b"pixels"
    assert [asked.path for asked in server.seen] == ["/three.png?sig=secret"]


def refusal_of(case):
    """Why the image cannot be fetched, with the traceback that Airflow would log."""
    with pytest.raises(ExportError, match=r"^golden case three: .*Next: ") as refusal:
        fetch_golden_image(case, "m")
    return "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_does_not_have_the_query(http_server, redirecting_server, signed, status):
    """Neither the line nor the traceback has the signature, also if the server redirects."""
    server = http_server((status, "no"))
    direct = refusal_of(signed(f"{server.url}/three.png", b"pixels"))
    redirected = refusal_of(signed(f"{redirecting_server(server.url).url}/three.png", b"pixels"))
    assert [asked.path for asked in server.seen] == ["/three.png?sig=secret"]
    assert str(status) in direct
    assert "secret" not in f"{direct}{redirected}"


def test_no_answer_does_not_have_the_query(closed_url, mean_server, signed, monkeypatch):
    """Nor if there is no answer, or one without an end."""
    monkeypatch.setattr("slipway.model.golden_images.TOTAL_S", 0.5)
    for url in (closed_url, mean_server.url):
        assert "secret" not in refusal_of(signed(f"{url}/three.png", b"pixels"))

"""Downloads: archives by URL, and how they are refused. Those of Hub models are in test_export_sources.py."""

import hashlib
import http.server
from contextlib import contextmanager

import pytest
from download import download_archive
from errors import ExportRefused, SourceUnreachable
from request import Archive, Limits
from small_server import start_server, stop_server


@contextmanager
def server(answer):
    """A server on loopback that answers each GET with `answer(handler)`; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            """Log nothing."""

    running = start_server(Handler)
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        stop_server(running)


def send(body):
    """An answer with this body."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(url):
    """An answer that leads to another address."""

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def archive(url, tmp_path, content=b"content"):
    """The archive at a URL, with the hash of this content."""
    return Archive(url=url, sha256=hashlib.sha256(content).hexdigest(), kept=tmp_path / "taken")


def test_archive_with_another_sha256_is_refused(tmp_path):
    """Only an archive with the requested sha256 is kept. The message does not say what was found: a worker reaches more than its users."""
    content = tmp_path / "m.tar.gz"
    content.write_bytes(b"content")
    download_archive(archive(content.as_uri(), tmp_path), Limits())
    assert (tmp_path / "taken").read_bytes() == b"content"
    (tmp_path / "taken").unlink()
    with pytest.raises(ExportRefused, match="its sha256 is not ") as refused:
        download_archive(archive(content.as_uri(), tmp_path, b"other"), Limits())
    assert hashlib.sha256(b"content").hexdigest() not in str(refused.value)
    with pytest.raises(ExportRefused, match="No such file"):
        download_archive(archive(content.as_uri() + ".gone", tmp_path), Limits())
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ExportRefused), (403, ExportRefused), (429, SourceUnreachable), (503, SourceUnreachable)]
)
def test_only_server_errors_can_be_retried(tmp_path, status, kind):
    """429, 5xx and a server that does not respond can be retried; 403 and 404 are final."""
    with server(lambda handler: handler.send_error(status)) as url:
        source = archive(f"{url}/m", tmp_path)
        with pytest.raises(ExportRefused, match=f"HTTP {status} ") as refused:
            download_archive(source, Limits())
    assert type(refused.value) is kind
    with pytest.raises(SourceUnreachable, match="refused"):
        download_archive(source, Limits())


def test_download_has_a_size(tmp_path):
    """A download is ended as soon as it exceeds the limit, whatever length the server announced."""

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))

    with server(endless) as url, pytest.raises(ExportRefused, match=r"larger than limits\.download_mib, 2 MiB"):
        download_archive(archive(url, tmp_path), Limits(download_mib=2))
    assert (tmp_path / "taken.partial").stat().st_size <= 4 << 20


def test_redirect_stays_on_its_host(tmp_path):
    """A redirect on the same host is followed; one to another host, or another port, is refused unasked."""
    asked = []

    def elsewhere(handler):
        asked.append(handler.path)
        send(b"content")(handler)

    with server(elsewhere) as other, server(redirect(f"{other}/m?token=x")) as url:
        with pytest.raises(ExportRefused, match=r"redirects to another host, 127\.0\.0\.1\. Next: ") as refused:
            download_archive(archive(f"{url}/m", tmp_path), Limits())
        assert "token" not in str(refused.value)
    assert asked == []

    def itself(handler):
        (redirect("/there") if handler.path == "/m" else send(b"content"))(handler)

    with server(itself) as url:
        download_archive(archive(f"{url}/m", tmp_path), Limits())
    assert (tmp_path / "taken").read_bytes() == b"content"


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "2852039166"])
def test_link_local_address_is_refused(tmp_path, host):
    """Clouds serve a machine's own credentials at a link-local address: it is never asked, however it is written."""
    with pytest.raises(ExportRefused, match="is a link-local address"):
        download_archive(archive(f"http://{host}/latest/meta-data", tmp_path), Limits())

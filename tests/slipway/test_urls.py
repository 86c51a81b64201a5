import time

import pytest

from slipway.errors import InputRefused
from slipway.urls import has_login, hide_logins, hide_secrets, plain_url, query_of

URLS = {
    "https://x/m.tar.gz": "https://x/m.tar.gz",
    "https://x:8443/m.tar.gz?sig=s&e=1#top": "https://x:8443/m.tar.gz",
    "https://me:pw@x/m?sig=s": "https://x/m",
    "https://token@x/m": "https://x/m",
    "https://me:p@w@x/m": "https://x/m",
    "HTTPS://token@x": "HTTPS://x",
    "https://x?sig=a/b@c": "https://x",
    "https://[2001:db8::9]:8501/a": "https://[2001:db8::9]:8501/a",
    "gs://google_cloud_default@BUCKET/a": "gs://google_cloud_default@BUCKET/a",
    "s3://key:secret@BUCKET/a": "s3://BUCKET/a",
    "file:///a/b": "file:///a/b",
    "digits-vit/three.png": "digits-vit/three.png",
    "https://[broken": "https://[broken",
}


@pytest.mark.parametrize(("url", "plain"), URLS.items())
def test_a_plain_url_has_no_login_and_no_query(url, plain):
    """Any text has a plain form, which is its own plain form. A connection's id in the URI of a bucket stays."""
    assert (plain_url(url), plain_url(plain), query_of(plain), has_login(plain)) == (plain, plain, "", False)


def test_logins_and_queries_are_hidden_in_texts():
    """Several URLs in a text; the id of a connection is no login."""
    text = "GET 'https://me:pw@x/a?sig=s': no; tcp://me:pw@y:1, gs://conn@b/c, http://token@z, image a/b@sha256:0"
    assert hide_logins(text) == text.replace("me:pw", "***").replace("token", "***")
    assert hide_secrets(text) == text.replace("me:pw", "***").replace("token", "***").replace("sig=s", "***")


@pytest.mark.parametrize("text", ["://" + ":" * 200_000, "://" * 70_000, "https://" + "@" * 200_000, "://?" * 50_000])
def test_any_text_is_read_in_linear_time(text):
    """A server's long error message does not hold a task."""
    began = time.process_time()
    hide_secrets(text)
    plain_url(text)
    assert time.process_time() - began < 1


def test_no_error_has_a_login():
    """What an error quotes goes into logs and records."""
    assert str(InputRefused("engine at tcp://me:pw@y:1: no. Next: look")) == "engine at tcp://***@y:1: no. Next: look"

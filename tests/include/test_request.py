"""REQUEST.json: what is accepted, and how invalid requests are refused."""

import json
from pathlib import Path

import pytest
from errors import ExportRefused
from request import Archive, Folder, GoldenImage, Hub, Limits, Origin, Request, Settings, parse_request, read_request

FOLDER = {"kind": "folder", "path": "/checkpoint"}
HUB = {"kind": "hub", "repo": "google/vit-base-patch16-224", "revision": "0" * 40, "kept": "/kept"}
ARCHIVE = {"kind": "savedmodel", "url": "https://example.org/m.tar.gz", "sha256": "a" * 64, "kept": "/kept"}
CASE = {"name": "three", "image": "/three.png", "label": "3", "min_confidence": 0.85}


def request(**changes):
    """A complete request with some fields replaced."""
    return {"model": "digits-vit", "source": FOLDER, "golden": [CASE], **changes}


def test_complete_request_becomes_values():
    """Every field of the request becomes a field of Request."""
    case = GoldenImage(name="three", image=Path("/three.png"), label="3", min_confidence=0.85)
    expected = Request(model="digits-vit", source=Folder(path=Path("/checkpoint")), golden=(case,))
    assert expected == parse_request(request())


def test_case_may_have_several_labels():
    """A case has one label or a list of labels; each is a text."""
    assert parse_request(request(golden=[{**CASE, "label": ["3", "8"]}])).golden[0].labels == ("3", "8")
    for wrong in ([], ["3", 8], [""]):
        with pytest.raises(ExportRefused, match=r"label: .* is not a list of texts"):
            parse_request(request(golden=[{**CASE, "label": wrong}]))


def test_settings_and_origin_are_optional():
    """A missing setting has its default; the request may name the source's origin for the card."""
    assert Settings() == parse_request(request()).settings
    parsed = parse_request(
        request(settings={"top_k": 2, "warmup_batches": [1, 8]}, origin={"location": "a", "revision": "b"})
    )
    assert parsed.settings == Settings(top_k=2, warmup_batches=(1, 8))
    assert parsed.origin == Origin(location="a", revision="b")


def test_hub_and_archive_are_sources_too():
    """A source may also be a Hub commit or an archive."""
    kept = Path("/kept")
    assert Hub(repo=HUB["repo"], revision="0" * 40, kept=kept) == parse_request(request(source=HUB)).source
    assert Archive(url=ARCHIVE["url"], sha256="a" * 64, kept=kept) == parse_request(request(source=ARCHIVE)).source


def test_limits_and_leaves_are_optional():
    """A missing limit has its default; an old format, and an export without a sandbox, need the request's leave."""
    plain, given = parse_request(request()), request(limits={"cpu_s": 60}, without_sandbox=True)
    assert (Limits(), False, frozenset()) == (plain.limits, plain.without_sandbox, plain.source.allow)
    assert (Limits(cpu_s=60), True) == (parse_request(given).limits, parse_request(given).without_sandbox)
    for source in (FOLDER, HUB):
        assert frozenset({"h5"}) == parse_request(request(source={**source, "allow": ["h5"]})).source.allow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "Digits ViT"}, "model: 'Digits ViT' does not match"),
        ({"model": 7}, "model: 7 is not a text"),
        ({"source": {"kind": "ftp"}}, "source.kind: 'ftp' is unknown"),
        ({"source": "checkpoint"}, "source.kind: None is unknown"),
        ({"source": {**HUB, "revision": "main"}}, "source.revision: 'main' does not match"),
        ({"source": {**HUB, "repo": "a/b/c"}}, "source.repo: 'a/b/c' does not match"),
        ({"source": {**ARCHIVE, "sha256": "abc"}}, "source.sha256: 'abc' does not match"),
        ({"source": {**ARCHIVE, "url": "ftp://x/m.tar"}}, "source.url: must begin with https://"),
        ({"source": {"kind": "folder"}}, "source: path is missing"),
        ({"source": {**FOLDER, "kept": "/kept"}}, "source: kept is unknown"),
        ({"source": {**FOLDER, "allow": ["pickle"]}}, "source.allow: ['pickle'] is not a list of ['h5']"),
        ({"source": {**ARCHIVE, "allow": ["h5"]}}, "source: allow is unknown"),
        ({"limits": {"memory_mib": 0}}, "limits.memory_mib: 0 is not a whole number of at least 1"),
        ({"limits": {"hours": 1}}, "limits: hours is unknown"),
        ({"without_sandbox": "yes"}, "without_sandbox: is neither true nor false"),
        ({"golden": {}}, "golden: must be a list"),
        ({"settings": {"top_k": 0}}, "settings.top_k: 0 is not a whole number of at least 1"),
        ({"settings": {"max_side": True}}, "settings.max_side: True is not"),
        ({"settings": {"on_bad_image": "skip"}}, "settings.on_bad_image: 'skip' is unknown"),
        (
            {"settings": {"warmup_batches": []}},
            "settings.warmup_batches: [] is not a list of whole numbers of at least 1",
        ),
        ({"settings": {"warmup_batches": [1, 0]}}, "settings.warmup_batches: [1, 0] is not"),
        ({"settings": {"quality": 1}}, "settings: quality is unknown"),
        ({"origin": {"location": "a"}}, "origin: revision is missing"),
        ({"golden": [{**CASE, "min_confidence": 85}]}, "golden[0].min_confidence: 85 is not a number from 0 to 1"),
        ({"golden": [{**CASE, "min_confidence": True}]}, "golden[0].min_confidence: True is not"),
        ({"golden": [{**CASE, "name": "../x"}]}, "golden[0].name: '../x' does not match"),
        ({"golden": [{**CASE, "weight": 1}]}, "golden[0]: weight is unknown"),
        ({"golden": [CASE, CASE]}, "golden: two cases are named 'three'"),
    ],
)
def test_invalid_field_is_named(changes, message):
    """The message has the field, its value and what next."""
    with pytest.raises(ExportRefused) as refused:
        parse_request(request(**changes))
    assert message in str(refused.value)
    assert "Next: " in str(refused.value)


def test_unreadable_file_is_named(tmp_path):
    """A missing or malformed file is refused; the message has its path."""
    with pytest.raises(ExportRefused, match=r"missing\.json: No such file"):
        read_request(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ExportRefused, match=r"broken\.json: not JSON"):
        read_request(tmp_path / "broken.json")
    (tmp_path / "empty.json").write_text(json.dumps({}))
    with pytest.raises(ExportRefused, match=r"empty\.json: the request: golden is missing"):
        read_request(tmp_path / "empty.json")

"""REQUEST.json: what is accepted, and how the rest is refused."""

import json
from pathlib import Path

import pytest
from refused import ExportRefused
from request import Archive, Folder, GoldenImage, Hub, Origin, Request, Settings, parse_request, read_request

FOLDER = {"kind": "folder", "path": "/checkpoint"}
HUB = {"kind": "hub", "repo": "google/vit-base-patch16-224", "revision": "0" * 40}
ARCHIVE = {"kind": "savedmodel", "url": "https://example.org/m.tar.gz", "sha256": "a" * 64}
CASE = {"name": "three", "image": "/three.png", "label": "3", "min_confidence": 0.85}


def request(**changes):
    """A complete request with some fields replaced."""
    return {"model": "digits-vit", "source": FOLDER, "golden": [CASE], **changes}


def test_complete_request_becomes_values():
    """Every field of the request has its counterpart."""
    case = GoldenImage(name="three", image=Path("/three.png"), label="3", min_confidence=0.85)
    expected = Request(model="digits-vit", source=Folder(path=Path("/checkpoint")), golden=(case,))
    assert expected == parse_request(request())


def test_case_may_have_several_labels():
    """One label or a list of them, each a text."""
    assert parse_request(request(golden=[{**CASE, "label": ["3", "8"]}])).golden[0].labels == ("3", "8")
    for wrong in ([], ["3", 8], [""]):
        with pytest.raises(ExportRefused, match=r"label: .* is not a list of texts"):
            parse_request(request(golden=[{**CASE, "label": wrong}]))


def test_settings_and_origin_are_optional():
    """What is not said of the settings has its default; where the source is from may be told for the card."""
    assert Settings() == parse_request(request()).settings
    said = parse_request(
        request(settings={"top_k": 2, "warmup_batches": [1, 8]}, origin={"location": "a", "revision": "b"})
    )
    assert said.settings == Settings(top_k=2, warmup_batches=(1, 8))
    assert said.origin == Origin(location="a", revision="b")


def test_three_kinds_of_source_are_known():
    """A source is a Hub commit or an archive as well."""
    assert Hub(repo=HUB["repo"], revision="0" * 40) == parse_request(request(source=HUB)).source
    assert Archive(url=ARCHIVE["url"], sha256="a" * 64) == parse_request(request(source=ARCHIVE)).source


@pytest.mark.parametrize("source", [HUB, ARCHIVE], ids=["hub", "archive"])
def test_place_to_keep_a_download_is_optional(source):
    """What is downloaded may be kept; a folder is there already."""
    assert parse_request(request(source=source)).source.kept is None
    assert parse_request(request(source={**source, "kept": "/kept"})).source.kept == Path("/kept")
    with pytest.raises(ExportRefused, match="source: kept is not known"):
        parse_request(request(source={**FOLDER, "kept": "/kept"}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "Digits ViT"}, "model: 'Digits ViT' does not match"),
        ({"model": 7}, "model: 7 is not a text"),
        ({"source": {"kind": "ftp"}}, "source.kind: 'ftp' is not known"),
        ({"source": "checkpoint"}, "source.kind: None is not known"),
        ({"source": {**HUB, "revision": "main"}}, "source.revision: 'main' does not match"),
        ({"source": {**HUB, "repo": "a/b/c"}}, "source.repo: 'a/b/c' does not match"),
        ({"source": {**ARCHIVE, "sha256": "abc"}}, "source.sha256: 'abc' does not match"),
        ({"source": {**ARCHIVE, "url": "ftp://x/m.tar"}}, "source.url: must begin with https://"),
        ({"source": {"kind": "folder"}}, "source: path is missing"),
        ({"golden": {}}, "golden: must be a list"),
        ({"settings": {"top_k": 0}}, "settings.top_k: 0 is not a whole number from 1 on"),
        ({"settings": {"max_side": True}}, "settings.max_side: True is not"),
        ({"settings": {"on_bad_image": "skip"}}, "settings.on_bad_image: 'skip' is not known"),
        ({"settings": {"warmup_batches": []}}, "settings.warmup_batches: [] is not a list of whole numbers from 1 on"),
        ({"settings": {"warmup_batches": [1, 0]}}, "settings.warmup_batches: [1, 0] is not"),
        ({"settings": {"quality": 1}}, "settings: quality is not known"),
        ({"origin": {"location": "a"}}, "origin: revision is missing"),
        ({"golden": [{**CASE, "min_confidence": 85}]}, "golden[0].min_confidence: 85 is not a number from 0 to 1"),
        ({"golden": [{**CASE, "min_confidence": True}]}, "golden[0].min_confidence: True is not"),
        ({"golden": [{**CASE, "name": "../x"}]}, "golden[0].name: '../x' does not match"),
        ({"golden": [{**CASE, "weight": 1}]}, "golden[0]: weight is not known"),
        ({"golden": [CASE, CASE]}, "golden: two cases are named 'three'"),
    ],
)
def test_field_that_is_wrong_is_named(changes, says):
    """A refusal names the field, its value, and says what next."""
    with pytest.raises(ExportRefused) as refused:
        parse_request(request(**changes))
    assert says in str(refused.value)
    assert "Next: " in str(refused.value)


def test_file_that_cannot_be_read_is_named(tmp_path):
    """A missing or malformed file is refused by its path."""
    with pytest.raises(ExportRefused, match=r"missing\.json: No such file"):
        read_request(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ExportRefused, match=r"broken\.json: not JSON"):
        read_request(tmp_path / "broken.json")
    (tmp_path / "empty.json").write_text(json.dumps({}))
    with pytest.raises(ExportRefused, match=r"empty\.json: the request: golden is missing"):
        read_request(tmp_path / "empty.json")

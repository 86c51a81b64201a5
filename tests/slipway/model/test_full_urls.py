import pytest

from slipway.model.full_urls import find_full_url, full_url
from slipway.model.served import parse_model_file

ONE, TWO, THREE = (digit * 64 for digit in "123")
ARCHIVE = {"savedmodel": "https://x/m.tar.gz?sig=archive", "sha256": ONE}
GOLDEN = {
    "golden": [
        {"name": "a", "image": "https://x/i?id=a", "sha256": TWO, "label": "a"},
        {"name": "b", "image": "https://x/i?id=b", "sha256": THREE, "label": "b"},
        {"name": "c", "image": "c.png", "label": "c"},
    ]
}

FOUND = {
    "archive": ("https://x/m.tar.gz", ONE, "https://x/m.tar.gz?sig=archive"),
    "golden image": ("https://x/i", TWO, "https://x/i?id=a"),
    "golden image with the same plain URL": ("https://x/i", THREE, "https://x/i?id=b"),
    "another hash": ("https://x/i", ONE, "https://x/i"),
    "another URL": ("https://y/i", TWO, "https://y/i"),
    "of an earlier Slipway": ("https://x/i?id=old", TWO, "https://x/i?id=old"),
}


@pytest.mark.parametrize(("plain", "sha256", "full"), FOUND.values(), ids=FOUND)
def test_a_url_is_found_by_its_plain_form_and_its_hash(plain, sha256, full):
    """The model file's query is used where the URL is fetched; without one in the model file, the URL as it is."""
    file = parse_model_file({"source": ARCHIVE, "gate": GOLDEN}, where="m.yaml")
    assert find_full_url(file, plain, sha256) == full


def test_the_query_is_masked_in_logs(users_folder):
    """A query that is logged by accident appears as asterisks."""
    from airflow.sdk.log import redact

    (users_folder / "served" / "m.yaml").write_text(
        f"source: {{savedmodel: 'https://x/m?signature=secret', sha256: '{ONE}'}}\n"
        "gate: {golden: [{name: a, image: a.png, label: a}]}\n"
    )
    assert full_url("m", "https://x/m", ONE) == "https://x/m?signature=secret"
    assert redact("asked for signature=secret") == "asked for ***"


def test_the_plain_url_is_used_if_the_model_file_cannot_be_read(users_folder):
    """The file may have been removed since the run was resolved."""
    assert full_url("m", "https://x/m", ONE) == "https://x/m"

from pathlib import Path

import pytest

from slipway.errors import InputRefused
from slipway.serving.labelled_set import MAX_IMAGES, pin_labelled_set, read_images


@pytest.fixture
def model_file(tmp_path):
    """Writes files next to a model file and returns the model file's path."""

    def write(**files):
        for name, text in files.items():
            place = tmp_path / name.replace("__", "/").replace("_csv", ".csv")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return tmp_path / "m.yaml"

    return write


def pin(path, name, store):
    """The pinned set of this name, with a minimum."""
    return pin_labelled_set(path, name, store, "m", min_top1=0.9)


def test_folder_and_csv_file_give_the_same_set(model_file, store):
    """The stored set is the same whether folders or a CSV column give the labels."""
    path = model_file(q__3__a="three", q__8__b="eight", q__labels_csv="image,label\n3/a,3\n8/b,8\n")
    from_csv = pin(path, "q/labels.csv", store)
    Path(path.parent / "q/labels.csv").unlink()
    assert from_csv == pin(path, "q", store)
    assert [(image.name, image.label) for image in read_images(from_csv)] == [("3/a", "3"), ("8/b", "8")]
    assert store.names("quality/m") == [f"{from_csv.digest.removeprefix('sha256:')[:12]}.json"]


def test_set_is_only_hashed_if_it_is_not_kept(model_file, store):
    """A run that only plans compares the set and writes nothing to the store."""
    path = model_file(q__3__a="three")
    planned = pin_labelled_set(path, "q", store, "m", min_top1=0.9, keep=False)
    assert store.names("quality/m") == []
    assert planned == pin(path, "q", store)


def test_another_set_if_an_image_or_a_label_changes(model_file, store):
    """The digest covers images and labels."""
    digests = set()
    for label, text in (("3", "three"), ("8", "three"), ("3", "other")):
        path = model_file(q__a=text, q__l_csv=f"image,label\na,{label}\n")
        digests.add(pin(path, "q/l.csv", store).digest)
    assert len(digests) == 3


REFUSED = {
    "not there": ({}, "q", "does not exist next to the model file"),
    "outside": ({}, "../..", "does not exist next to the model file"),
    "empty": ({"q__l_csv": "image,label\n"}, "q/l.csv", "has 0 images"),
    "image outside the labels' folders": ({"q__a": "x"}, "q", "a is not in a label's folder. Next: move it to LABEL/a"),
    "CSV file without labels": ({"q__a": "x", "q__l_csv": "image\na\n"}, "q/l.csv", "line 2 has no image or no label"),
    "missing images": ({"q__l_csv": "image,label\na,3\nb,3\n"}, "q/l.csv", "a and 1 more: no such file"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "name", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(model_file, store, files, name, words):
    """An invalid set is refused before anything is built."""
    with pytest.raises(InputRefused) as refusal:
        pin(model_file(**files), name, store)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "Next: " in str(refusal.value)


def test_refused_if_there_are_too_many(model_file, store):
    """The triggerer keeps the whole set in memory."""
    path = model_file(**{f"q__3__{n}": "x" for n in range(MAX_IMAGES + 1)})
    with pytest.raises(InputRefused, match="has 1001 images"):
        pin(path, "q", store)

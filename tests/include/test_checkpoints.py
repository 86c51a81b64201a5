"""Every supported kind of checkpoint answers as 🤗 does; the others are refused by name."""

import pytest

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
]  # minutes of TensorFlow; only a change of include/model or its lock can break them


KINDS = ["vit", "deit", "swin", "convnext", "mobilevit"]


@pytest.mark.parametrize("kind", [*KINDS, "clip-processor"])
def test_probabilities_are_those_of_the_checkpoint(checkpoint_trial, kind):
    """On photographs of two sizes, every probability is within 0.00001 of 🤗's processor and TensorFlow class."""
    trial = checkpoint_trial[kind]
    labels, scores = trial["top_k"]["labels"], trial["top_k"]["scores"]
    assert len(labels) == 4
    for chances, names, values in zip(trial["reference"], labels, scores, strict=True):
        assert pytest.approx(chances, abs=1e-5) == [
            dict(zip(names, values, strict=True))[name] for name in trial["labels"]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_graph_runs_where_xla_is_refused(checkpoint_trial, kind):
    """TensorFlow Serving refuses to compile with XLA unless a flag allows it: every graph answers there, and the same."""
    first = {name: values[0] for name, values in checkpoint_trial[kind]["top_k"].items()}
    found = checkpoint_trial["without-xla"][kind]
    assert found["labels"] == [first["labels"]]
    assert found["scores"] == [pytest.approx(first["scores"], abs=1e-5)]


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_agree(checkpoint_trial, kind):
    """All signatures give the same answers, with the labels of `id2label`."""
    trial = checkpoint_trial[kind]
    assert trial["serving_default"]["label"] == trial["raw_bytes"]["label"]
    assert trial["serving_default"]["confidence"] == pytest.approx(trial["raw_bytes"]["confidence"], abs=1e-6)
    assert [names[0] for names in trial["top_k"]["labels"]] == trial["raw_bytes"]["label"]
    assert [values[0] for values in trial["top_k"]["scores"]] == pytest.approx(
        trial["raw_bytes"]["confidence"], abs=1e-6
    )
    assert all(values == sorted(values, reverse=True) for values in trial["top_k"]["scores"])
    assert trial["labels"] == ["Ägyptische Katze", "dog", "bird", "fish"]


def test_all_weight_formats_give_the_same_probabilities(checkpoint_trial):
    """Weights in PyTorch's layout or in an h5 file give the same probabilities as TensorFlow's safetensors."""
    for other in ("vit-pytorch", "vit-h5"):
        pairs = zip(checkpoint_trial["vit"]["reference"], checkpoint_trial[other]["reference"], strict=True)
        assert all(expected == pytest.approx(found, abs=1e-6) for expected, found in pairs)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("without-head", "2 weights are missing or have the wrong shape (first: classifier/bias:0)"),
        ("other-processor", "the image processor DonutImageProcessor is not supported"),
        ("other-model", "model type 'levit' has no TensorFlow class for image classification"),
    ],
)
def test_checkpoint_that_cannot_be_served_is_refused(checkpoint_trial, kind, message):
    """A checkpoint without a trained head, or with an unknown processor or model type, is refused by name."""
    assert message in checkpoint_trial[kind]["refused"]


def test_graph_that_differs_from_its_processor_is_refused(checkpoint_trial):
    """A graph with another resize filter than 🤗 is not exported; the message has the worst image and both answers."""
    found = checkpoint_trial["parity"][0]
    assert "images differ from 🤗; the worst is " in found
    assert "the exported graph answers '" in found
    assert "🤗's own model '" in found


def test_model_that_returns_nan_is_refused(checkpoint_trial):
    """A NaN is outside every bound: all images fail, and the export ends with one line."""
    found = checkpoint_trial["parity"][1]
    assert "26 of 26" in found
    assert "(nan), nan apart" in found
    assert "\n" not in found


def test_golden_image_in_cmyk_has_a_larger_tolerance(checkpoint_trial):
    """TensorFlow converts CMYK to slightly darker colours than PIL, so a CMYK golden case has its own tolerance."""
    assert checkpoint_trial["tolerances"] == [0.01, 0.1]


REASONS = {
    "empty": "is empty",
    "text": "is no JPEG, PNG, GIF, BMP or WebP image",
    "html": "is no JPEG, PNG, GIF, BMP or WebP image",
    "svg": "is no JPEG, PNG, GIF, BMP or WebP image",
    "cut jpeg header": "is broken or cut short",
    "cut bmp": "is broken or cut short",
    "png signature alone": "is broken or cut short",
    "bomb": "has 50000 x 50000 pixels, a side of 2000 is allowed",
    "long side": "has 2001 x 1 pixels, a side of 2000 is allowed",
    "gif without frame": "is broken or cut short",
    "part of a gif": "is a GIF whose first frame is not the whole picture, only whole ones are read",
    "cmyk jpeg without adobe": "is a CMYK JPEG without the marker of Adobe that says how its colours are meant",
    "animated webp": "is an animated WebP, only still ones are read",
    "bmp of 16 bits": "is a BMP of a kind that is not read: compressed, or of 16 bits",
}
BROKEN = {"cut jpeg": "Invalid JPEG", "cut png": "Invalid PNG", "cut gif": "Invalid GIF", "cut webp": "decode WebP"}


def test_bad_image_refuses_its_request(checkpoint_trial):
    """One bad image makes the whole request INVALID_ARGUMENT; the message says which image and why."""
    refused = {
        name: found["INVALID_ARGUMENT"] for name, found in checkpoint_trial["bad-images"]["refuse"]["bad"].items()
    }
    assert {*REASONS, *BROKEN, "large file"} == set(refused)
    for name, words in REASONS.items():
        assert f"image 2 {words}" in refused[name]
    for name, words in BROKEN.items():
        assert words in refused[name]
    assert "image 2 has 2" in refused["large file"]
    assert "bytes, 200000 are allowed" in refused["large file"]
    assert "base64" in checkpoint_trial["bad-images"]["refuse"]["base64"]["INVALID_ARGUMENT"]


def test_marked_image_does_not_affect_others(checkpoint_trial):
    """If bad images are marked, good ones in the same request get their usual answers; the mark gives the reason."""
    trial = checkpoint_trial["bad-images"]["mark"]
    [good, _], [sure, _] = trial["good"]["raw_bytes"]["label"], trial["good"]["raw_bytes"]["confidence"]
    words = REASONS | dict.fromkeys(BROKEN, "is broken or cut short")
    for name, found in trial["bad"].items():
        assert [found["label"][0], found["label"][2]] == [good, good]
        assert found["confidence"] == pytest.approx([sure, 0, sure], abs=1e-6)
        assert found["label"][1].startswith("!bad image: ")
        assert name == "large file" or found["label"][1] == f"!bad image: {words[name]}"


def test_every_signature_marks_bad_images(checkpoint_trial):
    """top_k has the mark as its first label, with scores of 0; invalid base64 is marked like a bad image."""
    trial = checkpoint_trial["bad-images"]["mark"]
    assert trial["top_k"]["labels"][1] == ["!bad image: is no JPEG, PNG, GIF, BMP or WebP image", "", "", ""]
    assert trial["top_k"]["scores"][1] == [0, 0, 0, 0]
    assert trial["top_k"]["labels"][0] == trial["good"]["top_k"]["labels"][0]
    assert trial["base64"]["label"][0] == "!bad image: is not in web-safe base64"
    assert trial["base64"]["label"][1] == trial["good"]["raw_bytes"]["label"][0]


def test_good_images_get_the_same_answer_in_both_modes(checkpoint_trial):
    """Good images get the same answers whether bad ones are refused or marked."""
    refuse, mark = (checkpoint_trial["bad-images"][way]["good"]["raw_bytes"] for way in ("refuse", "mark"))
    assert refuse == {**mark, "confidence": pytest.approx(mark["confidence"], abs=1e-6)}

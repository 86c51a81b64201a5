"""Kinds of checkpoints: each supported one answers as 🤗 does, the others are refused by name."""

import pytest

pytestmark = pytest.mark.model


KINDS = ["vit", "deit", "swin", "convnext", "mobilevit"]


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_the_checkpoint(checkpoint_trial, kind):
    """On photographs of two sizes every probability is that of 🤗's processor and TensorFlow class, to 0.00001."""
    trial = checkpoint_trial[kind]
    labels, scores = trial["top_k"]["labels"], trial["top_k"]["scores"]
    assert len(labels) == 4
    for chances, names, values in zip(trial["reference"], labels, scores, strict=True):
        assert pytest.approx(chances, abs=1e-5) == [
            dict(zip(names, values, strict=True))[name] for name in trial["labels"]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_agree(checkpoint_trial, kind):
    """Base64 or bytes, best label or all of them in order: the same answers, with labels as `id2label` has them."""
    trial = checkpoint_trial[kind]
    assert trial["serving_default"]["label"] == trial["raw_bytes"]["label"]
    assert trial["serving_default"]["confidence"] == pytest.approx(trial["raw_bytes"]["confidence"], abs=1e-6)
    assert [names[0] for names in trial["top_k"]["labels"]] == trial["raw_bytes"]["label"]
    assert [values[0] for values in trial["top_k"]["scores"]] == pytest.approx(
        trial["raw_bytes"]["confidence"], abs=1e-6
    )
    assert all(values == sorted(values, reverse=True) for values in trial["top_k"]["scores"])
    assert trial["labels"] == ["Ägyptische Katze", "dog", "bird", "fish"]


def test_who_saved_the_weights_does_not_matter(checkpoint_trial):
    """Weights in PyTorch's layout, or in an h5 file, give the probabilities of TensorFlow's safetensors."""
    for other in ("vit-pytorch", "vit-h5"):
        pairs = zip(checkpoint_trial["vit"]["reference"], checkpoint_trial[other]["reference"], strict=True)
        assert all(expected == pytest.approx(found, abs=1e-6) for expected, found in pairs)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("without-head", "2 weights are missing or of another shape (first: classifier/bias:0)"),
        ("other-processor", "the image processor CLIPImageProcessor is not supported"),
        ("other-model", "model type 'levit' has no TensorFlow class for image classification"),
    ],
)
def test_checkpoint_that_cannot_be_served_is_refused(checkpoint_trial, kind, says):
    """A checkpoint without a trained head, with an unknown processor or model type is refused, saying which."""
    assert says in checkpoint_trial[kind]["refused"]


def test_graph_that_is_not_as_its_processor_is_refused(checkpoint_trial):
    """A graph that resizes with another filter than 🤗 is not exported: the worst image and both answers are said."""
    said = checkpoint_trial["parity"][0]
    assert "images are not as 🤗 has them; the worst is " in said
    assert "the exported graph answers '" in said
    assert "🤗's own model '" in said


def test_model_that_gives_no_numbers_is_refused(checkpoint_trial):
    """A NaN is within no bounds: the export ends with one line, and every picture is bad."""
    said = checkpoint_trial["parity"][1]
    assert "26 of 26" in said
    assert "(nan), nan apart" in said
    assert "\n" not in said


def test_golden_image_in_cmyk_may_be_further_off(checkpoint_trial):
    """TensorFlow's decoder mixes CMYK a little darker than PIL, so that a golden case of it has a tolerance of its own."""
    assert checkpoint_trial["tolerances"] == [0.01, 0.1]


SAYS = {
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
    """One bad image among good ones is INVALID_ARGUMENT for the whole request, and the message says which and why."""
    refused = {name: said["INVALID_ARGUMENT"] for name, said in checkpoint_trial["bad-images"]["refuse"]["bad"].items()}
    assert {*SAYS, *BROKEN, "large file"} == set(refused)
    for name, words in SAYS.items():
        assert f"image 2 {words}" in refused[name]
    for name, words in BROKEN.items():
        assert words in refused[name]
    assert "image 2 has 2" in refused["large file"]
    assert "bytes, 200000 are allowed" in refused["large file"]
    assert "base64" in checkpoint_trial["bad-images"]["refuse"]["base64"]["INVALID_ARGUMENT"]


def test_marked_image_harms_no_other(checkpoint_trial):
    """Where bad images are marked, the good ones beside them are answered as ever, and the mark says why."""
    trial = checkpoint_trial["bad-images"]["mark"]
    [good, _], [sure, _] = trial["good"]["raw_bytes"]["label"], trial["good"]["raw_bytes"]["confidence"]
    words = SAYS | dict.fromkeys(BROKEN, "is broken or cut short")
    for name, said in trial["bad"].items():
        assert [said["label"][0], said["label"][2]] == [good, good]
        assert said["confidence"] == pytest.approx([sure, 0, sure], abs=1e-6)
        assert said["label"][1].startswith("!bad image: ")
        assert name == "large file" or said["label"][1] == f"!bad image: {words[name]}"


def test_marks_are_in_every_signature(checkpoint_trial):
    """top_k has the mark as its first label, with scores of 0; text that is no base64 is marked like a bad image."""
    trial = checkpoint_trial["bad-images"]["mark"]
    assert trial["top_k"]["labels"][1] == ["!bad image: is no JPEG, PNG, GIF, BMP or WebP image", "", "", ""]
    assert trial["top_k"]["scores"][1] == [0, 0, 0, 0]
    assert trial["top_k"]["labels"][0] == trial["good"]["top_k"]["labels"][0]
    assert trial["base64"]["label"][0] == "!bad image: is not in web-safe base64"
    assert trial["base64"]["label"][1] == trial["good"]["raw_bytes"]["label"][0]


def test_good_images_are_answered_alike(checkpoint_trial):
    """Whether bad images are refused or marked changes nothing for good ones."""
    refuse, mark = (checkpoint_trial["bad-images"][way]["good"]["raw_bytes"] for way in ("refuse", "mark"))
    assert refuse == {**mark, "confidence": pytest.approx(mark["confidence"], abs=1e-6)}

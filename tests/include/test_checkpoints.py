"""Kinds of checkpoints: each supported one answers as 🤗 does, the others are refused by name."""

import pytest

pytestmark = pytest.mark.model


@pytest.mark.parametrize("kind", ["vit", "vit-h5", "vit-pytorch", "deit", "swin", "convnext", "mobilevit"])
def test_exported_graph_answers_as_the_checkpoint_does(checkpoint_trial, kind):
    """On photographs of two sizes, the label is the same and the confidence within a thousandth."""
    answers = checkpoint_trial[kind]["answers"]
    assert len(answers) == 4
    for answer in answers:
        assert answer["reference"][0] == answer["graph"][0]
        assert answer["reference"][1] == pytest.approx(answer["graph"][1], abs=1e-3)


def test_who_saved_the_weights_does_not_matter(checkpoint_trial):
    """Weights in PyTorch's layout, or in an h5 file, give the very answers of TensorFlow's safetensors."""
    assert checkpoint_trial["vit"] == checkpoint_trial["vit-pytorch"]
    assert checkpoint_trial["vit"] == checkpoint_trial["vit-h5"]


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

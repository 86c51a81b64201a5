"""Only what PyTorch's class and the server can do with a checkpoint's own weights is exported."""

import pytest

pytestmark = pytest.mark.model

REFUSED = {
    "a weight is missing": "here: 1 weights are missing (classifier.weight). Next: ",
    "a weight has another shape": "classifier.weight",
    "a weight is left over": "here: 1 weights are none of ViTForImageClassification's (extra.weight). Next: ",
    "PyTorch's names in TensorFlow's layout": "has no name of TensorFlow's",
    "not safetensors": "here: ",
    "HDF5": "source: here: its weights are in HDF5, which only TensorFlow's classes read. Next: ",
    "another model type": "here/config.json: model type 'bert' has no class for image classification",
    "colours instead of pixels": "model type 'imagegpt' takes the numbers of colours instead of pixels. Next: ",
    "patches instead of pixels": "model type 'siglip2' takes a varying number of patches of an image. Next: ",
    "one of two classes": "it has no architectures. Next: let it name DeiTForImageClassification or DeiTForImageClassificationWithTeacher",
    "code of its own": "here: ",
    "another processor": "the image processor ImageGPTImageProcessorPil is not supported: it outputs numbers of colours instead of pixels. Next: ",
    "images of another size": "the model does not take the 36 x 36 pixels of its image processor (",
    "a filter of PIL alone": "resample box is not supported for a fast image processor. Next: ",
    "one label fewer": "id2label has 6 labels, and the model 7 outputs. Next: ",
}


@pytest.mark.parametrize("what", REFUSED)
def test_checkpoint_is_refused(checkpoints_trial, what):
    """Nothing is invented or guessed: the message names the weight, the model type or the setting."""
    assert REFUSED[what] in (checkpoints_trial["refused"][what] or "nothing is wrong")
    assert "Next: " in checkpoints_trial["refused"][what]


def test_every_spoilt_checkpoint_is_tested(checkpoints_trial):
    """The script and this file name the same ones; the checkpoint that is spoilt is a good one."""
    assert set(REFUSED) == set(checkpoints_trial["refused"])
    assert checkpoints_trial["good"] is None


def test_old_name_of_a_processor_is_known(checkpoints_trial):
    """Google's ViT names its processor ViTFeatureExtractor."""
    assert checkpoints_trial["old name"]


def test_tensorflows_layout_is_pytorchs(checkpoints_trial):
    """The digits' weights, which TensorFlow saved, give the answers that they give when PyTorch has saved them again."""
    assert checkpoints_trial["layouts"] == 0


def test_exporter_is_shut_in(checkpoints_trial):
    """While it exports, it reads its input and writes to its folder; no other file, no network, no other process."""
    left = checkpoints_trial["left"]
    if "no Landlock" in left.pop("sandbox"):
        pytest.skip("this kernel has no Landlock")
    assert (left.pop("read its input"), left.pop("write to its folder")) == ("done", "done")
    assert set(left.values()) == {"Permission denied"}, left

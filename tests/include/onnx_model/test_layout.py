"""Weights in TensorFlow's layout: each name and each order of axes that PyTorch has for them."""

import pytest
from tensorflow_layout import axes, name


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ("classifier/kernel:0", "classifier.weight"),
        ("vit/embeddings/cls_token:0", "vit.embeddings.cls_token"),
        ("vit/encoder/layer_._0/layernorm_after/gamma:0", "vit.encoder.layer.0.layernorm_after.weight"),
        ("vit/encoder/layer_._11/output/dense/bias:0", "vit.encoder.layer.11.output.dense.bias"),
        ("resnet/bn/moving_mean:0", "resnet.bn.running_mean"),
        ("resnet/bn/moving_variance:0", "resnet.bn.running_var"),
        ("mobilevit/conv/depthwise_kernel:0", "mobilevit.conv.weight"),
        ("model/before___after/layer/beta:0", "model.after.layer.bias"),
        ("unknown/thing:0", "unknown.thing"),
    ],
)
def test_name(saved, expected):
    """A list's places, the names of kernels and of statistics are PyTorch's; any other name stays, and loading refuses it."""
    assert expected == name(saved)


@pytest.mark.parametrize(
    ("saved", "rank", "expected"),
    [
        ("dense/kernel:0", 2, (1, 0)),
        ("conv/kernel:0", 3, (2, 1, 0)),
        ("conv/kernel:0", 4, (3, 2, 0, 1)),
        ("conv/depthwise_kernel:0", 4, (2, 3, 0, 1)),
        ("dense/bias:0", 1, None),
        ("embeddings/position_embeddings:0", 3, None),
    ],
)
def test_axes(saved, rank, expected):
    """Only kernels have other axes."""
    assert expected == axes(saved, rank)

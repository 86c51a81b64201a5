"""Writes graphs anew; conftest.py runs this in the exporter's environment.

Prints one JSON object. For each graph: how it was made, the largest difference of an answer by batch, and the products before and
after.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from faster_graph import faster
from sizes import read_sizes
from transformers import DeiTConfig, TFDeiTForImageClassification, TFViTForImageClassification, ViTConfig

BATCHES = (1, 4, 8)
TOKENS, WIDTH = 7, 5  # odd on purpose
SMALL = {"hidden_size": 30, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 47, "patch_size": 6}
RANDOM_GRAPHS = 24


def products(function: Any) -> dict[int, int]:
    """How many products have a bias added directly, which TensorFlow computes together, by their rows for each image."""
    traced = function.get_concrete_function()
    sizes = read_sizes(traced)
    biases = [
        one for one in traced.graph.get_operations() if one.type == "BiasAdd" and one.inputs[0].op.type == "MatMul"
    ]
    return Counter(-sizes[bias.inputs[0].name][0] for bias in biases)


def tried(model: Callable[[Any], Any], *size: int) -> dict[str, Any]:
    """Write a model's graph anew and compare both on noise."""
    function = tf.function(model, input_signature=[tf.TensorSpec([None, *size], tf.float32)])
    served = faster(function)
    apart = {}
    for batch in BATCHES:
        pixels = np.random.default_rng(batch).standard_normal((batch, *size)).astype(np.float32)
        apart[batch] = float(np.abs(function(pixels).numpy() - served.function(pixels).numpy()).max())
    is_new = served.function is not function
    return {
        "how": served.how,
        "apart": apart,
        "before": products(function),
        "after": products(served.function) if is_new else None,
    }


def classifier(kind: Any, config: Any) -> Callable[[Any], Any]:
    """The probabilities of a 🤗 model whose answers differ between images."""
    model = kind(config)
    model.build_in_name_scope()
    model.classifier.kernel.assign(model.classifier.kernel * 20)
    return lambda pixels: tf.nn.softmax(model(pixel_values=pixels, training=False).logits, axis=-1)


def dense(width: int = WIDTH, activation: str | None = None, *, given: int = WIDTH) -> Any:
    """A Dense layer whose bias is not zero."""
    bias = tf.keras.initializers.RandomNormal(seed=width)
    layer = tf.keras.layers.Dense(width, activation, bias_initializer=bias)
    layer.build([None, None, given])
    return layer


def normaliser() -> Any:
    """A layer as ViT has it."""
    layer = tf.keras.layers.LayerNormalization(epsilon=1e-12)
    layer.build([None, None, WIDTH])
    return layer


def blocks() -> dict[str, Callable[[Any], Any]]:
    """Graphs of tensors of [batch, tokens, channels], each with one thing that a rewrite could get wrong."""
    one, two, wide, narrow, last, norm = dense(), dense(), dense(11, "gelu"), dense(given=11), dense(3), normaliser()
    joined = dense(3, given=WIDTH * TOKENS)

    def block(x: Any) -> Any:
        return norm(x + narrow(wide(one(x))))

    def attention(x: Any) -> Any:
        scores = tf.nn.softmax(tf.matmul(one(x), two(x), transpose_b=True) / 3.0)
        return last(x + tf.matmul(scores, x))

    return {
        "all tokens": lambda x: tf.reduce_mean(last(block(x)), axis=1),
        "first token": lambda x: last(block(x))[:, 0],
        "fourth token": lambda x: last(block(x))[:, 3],
        "last token": lambda x: last(block(x))[:, -1],
        "two tokens": lambda x: tf.math.subtract(*tf.unstack(last(block(x))[:, :2], axis=1)),
        "first token and all": lambda x: last(block(x))[:, 0] + tf.reduce_mean(two(block(x)), axis=[1, 2])[:, None],
        "attention": lambda x: attention(x)[:, 0],
        "a channel": lambda x: last(block(x))[..., 1],
        "first image": lambda x: last(block(x))[0],
        "a mean of tokens is added": lambda x: last(block(x) + tf.reduce_mean(one(x), axis=1, keepdims=True))[:, 0],
        "softmax over tokens": lambda x: tf.nn.softmax(tf.transpose(last(block(x)), [0, 2, 1]))[:, :, 0],
        "mean without its axis": lambda x: tf.reduce_mean(last(block(x)), axis=-1)[:, 0],
        "mean of all": lambda x: last(block(x) - tf.reduce_mean(one(x)))[:, 0],
        "images by images": lambda x: tf.matmul(last(x)[:, 0], last(block(x))[:, 0], transpose_b=True),
        "tokens before images": lambda x: tf.transpose(last(tf.transpose(block(x), [1, 0, 2])), [1, 0, 2])[:, 0],
        "tokens joined": lambda x: joined(tf.reshape(block(x), [-1, 1, WIDTH * TOKENS]))[:, 0],
        "tokens chosen by value": lambda x: last(tf.boolean_mask(block(x), x[0, :, 0] > -9, axis=1))[:, 0],
        "transposed kernel": lambda x: product(x, WIDTH, [-1, TOKENS, 3], transposed=True)[:, 0],
        "images before tokens": lambda x: tf.transpose(product(x, WIDTH, [TOKENS, -1, 3]), [1, 0, 2])[:, 0],
        "an image as one row": lambda x: product(x, WIDTH * TOKENS, [-1, 1, 3])[:, 0],
        "no layer": lambda x: tf.nn.softmax(tf.reduce_mean(x, axis=1)),
        "a branch": lambda x: last(tf.cond(tf.shape(x)[0] > 2, lambda: one(x), lambda: two(x)))[:, 0],
        "random numbers": lambda x: last(block(x))[:, 0] + 0 * tf.random.normal([]),
        "no numbers": lambda x: last(block(x))[:, 0] * np.nan,
    }


def product(x: Any, width: int, size: list[int], *, transposed: bool = False) -> Any:
    """A Dense layer written by hand: rows of that width, and a result of that size."""
    kernel = np.random.default_rng(3).standard_normal((3, width) if transposed else (width, 3)).astype(np.float32)
    rows = tf.matmul(tf.reshape(x, [-1, width]), kernel, transpose_b=transposed)
    return tf.nn.bias_add(tf.reshape(rows, size), [1.0, 2.0, 3.0])


def random_graph(seed: int) -> Callable[[Any], Any]:
    """A chain of operations in a random order, with branches that join again, of which one token is read."""
    numbers = np.random.default_rng(seed)
    layers = [dense(activation=numbers.choice(["relu", "gelu", "tanh", "swish", None])) for _ in range(4)]
    norm, order = normaliser(), numbers.integers(0, 9, 9)
    place = int(numbers.integers(0, TOKENS))

    def model(x: Any) -> Any:
        made = [x]
        for step, kind in enumerate(order):
            y, other = made[-1], made[step // 2]
            steps = [
                lambda y=y, step=step: layers[step % 4](y),
                lambda y=y, step=step: layers[step % 4](y),
                lambda y=y: norm(y),
                lambda y=y, other=other: y + other,
                lambda y=y, other=other: tf.matmul(tf.nn.softmax(tf.matmul(y, other, transpose_b=True)), other),
                lambda y=y: y - tf.reduce_mean(y, axis=1, keepdims=True),
                lambda y=y: tf.transpose(tf.transpose(y, [0, 2, 1]), [0, 2, 1]) * 0.5,
                lambda y=y, other=other: y * tf.sigmoid(other[:, 2:3]),
                lambda y=y: tf.reshape(tf.reshape(y, [-1, WIDTH]), [-1, TOKENS, WIDTH]),
            ]
            made.append(steps[kind]())
        return tf.nn.softmax(layers[0](made[-1])[:, place])

    return model


def main() -> None:
    """Try every graph."""
    tf.keras.utils.set_random_seed(5)
    side = 30  # 25 tokens and those that the model adds
    vit = classifier(TFViTForImageClassification, ViTConfig(image_size=side, **SMALL))
    deit = classifier(TFDeiTForImageClassification, DeiTConfig(image_size=side, **SMALL))
    found = {"vit": tried(vit, 3, side, side), "deit": tried(deit, 3, side, side)}
    found |= {name: tried(block, TOKENS, WIDTH) for name, block in blocks().items()}
    found |= {f"random {seed}": tried(random_graph(seed), TOKENS, WIDTH) for seed in range(RANDOM_GRAPHS)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

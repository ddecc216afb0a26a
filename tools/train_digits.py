"""Train the small ResNetV2 that ships with refnet, with TF-Slim itself, and record TF-Slim's logits.

    uv run --group train tools/train_digits.py --output refnet/data/digits
    uv run --group train tools/train_digits.py --output refnet/data/digits \
        --record tests/slim/goldens/digits_logits.npz

The first command trains and writes the checkpoint, the held-out images and the model card. The second trains
nothing: it records the logits that TF-Slim computes from the checkpoint found in the output directory.

The split is the same on every run. The weights are not: TensorFlow's convolution gradients sum in an order that
varies with its threads, so two runs give two different networks of about the same accuracy.
"""

# TensorFlow, tf_slim and scikit-learn ship no types.
# mypy: disable-error-code="import-untyped"

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow.compat.v1 as tf
import tf_keras.src.legacy_tf_layers.normalization as legacy_normalization
import tf_slim as slim
from sklearn.datasets import load_digits
from tensorflow.python.layers import normalization
from tf_slim.nets import resnet_utils, resnet_v2

# TensorFlow looks for this module where tf_keras no longer keeps it; tf_slim's batch_norm needs it.
normalization.normalization = legacy_normalization

Pixels = npt.NDArray[np.uint8]

SCOPE = "resnet_v2_digits"
# (base_depth, num_units, stride); the last block keeps its resolution, as in every ResNetV2 of TF-Slim.
BLOCKS = ((8, 2, 2), (16, 2, 2), (32, 2, 1))
NUM_CLASSES = 10
SIZE = 32
SEED = 2016
HELD_OUT = 360
BATCH = 32
EPOCHS = 60
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 5e-4
# The moving statistics average over about an epoch (45 steps), which fits a run of some thousand steps.
BATCH_NORM_DECAY = 0.97
FORMAT_VERSION = 1

CARD = """\
# resnet_v2_digits

A ResNetV2 with {parameters:,} parameters that classifies handwritten digits, trained with TF-Slim's own `resnet_v2`,
so that refnet can show and test a real trained network without a download.

**Held-out accuracy: {correct} of {count} = {accuracy:.2f} %** (`is_training=False`, moving statistics). The held-out
images are the first {count} of a seeded permutation. They were used neither for training nor for any choice; the
weights are those of the last epoch. The same people wrote training and held-out digits, so
expect less on other people's digits.

| part | output | definition |
|---|---|---|
| input | 32x32x3 | uint8 RGB, see below |
| conv1, pool1 | 8x8x64 | 7x7 stride 2, then 3x3 max pooling stride 2 |
{block_rows}
| postnorm, pool5, logits | {classes} | batch norm and ReLU, mean over the map, 1x1 convolution |

`resnet_v2_block(scope, base_depth, num_units, stride)` for each block, `include_root_block=True`,
`num_classes={classes}` (class k is the digit k), variable scope `{scope}`, `batch_norm_epsilon=1e-5`.

**Input recipe**: `Recipe(height=32, width=32, central_fraction=1.0)`: grey replicated to three uint8 channels,
`convert_image_dtype` to float32, `resize_bilinear` to 32x32 with `align_corners=False`, `(x - 0.5) * 2`.

**Files**: `digits.ckpt.index` and `digits.ckpt.data-00000-of-00001`, a TensorFlow V2 checkpoint (weights and moving
statistics); `held_out.npz`, `images` uint8 [{count}, 8, 8] and `labels` uint8 [{count}].

**Data**: 1,797 images of 8x8 pixels with values 0 to 16, here `round(value * 255 / 16)`; the test part of *Optical
Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, CC BY 4.0), as in scikit-learn's `load_digits` (BSD-3-Clause).

**Training**: `uv run --group train tools/train_digits.py --output refnet/data/digits`; {trained} images, {epochs}
epochs of Adam with cosine decay, random shifts by up to one pixel. Another run gives other weights. Made with
{versions}.
TF-Slim's logits of the held-out images are in `tests/slim/goldens/digits_logits.npz`.
"""


def load_split() -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Load the digits and split them the same way on every run.

    Returns
    -------
    train_images, train_labels, held_images, held_labels
        Grey uint8 [n, 8, 8] with 0..16 stretched to 0..255, and uint8 [n]; ``HELD_OUT`` images are held out.
    """
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(images))
    held, train = order[:HELD_OUT], order[HELD_OUT:]
    return images[train], labels[train], images[held], labels[held]


def as_rgb(grey: Pixels) -> Pixels:
    """Replicate grey [n, 8, 8] to RGB [n, 8, 8, 3]."""
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def shifted(grey: Pixels, rng: np.random.Generator) -> Pixels:
    """Shift each image by -1, 0 or 1 pixel on each axis, filling with black."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    offsets = rng.integers(0, 3, size=(len(grey), 2))
    return np.stack([image[y : y + 8, x : x + 8] for image, (y, x) in zip(padded, offsets, strict=True)])


def batches(images: Pixels, labels: Pixels, rng: np.random.Generator) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield one epoch of shuffled, shifted RGB batches of ``BATCH`` images; a smaller rest is left out."""
    order = rng.permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield as_rgb(shifted(images[chosen], rng)), labels[chosen]


def preprocess(images: Any) -> Any:
    """Build the input recipe: uint8 RGB [n, h, w, 3] to float32 [n, 32, 32, 3] in -1..1."""
    net = tf.image.convert_image_dtype(images, tf.float32)
    net = tf.image.resize_bilinear(net, [SIZE, SIZE], align_corners=False)
    return (net - 0.5) * 2.0


def build_logits(images: Any, is_training: bool, dtype: Any = tf.float32) -> Any:
    """Build preprocessing in float32 and the network in `dtype`; return logits [n, 10]."""
    blocks = [
        resnet_v2.resnet_v2_block(f"block{i}", base_depth=base_depth, num_units=num_units, stride=stride)
        for i, (base_depth, num_units, stride) in enumerate(BLOCKS, start=1)
    ]
    arg_scope = resnet_utils.resnet_arg_scope(weight_decay=WEIGHT_DECAY, batch_norm_decay=BATCH_NORM_DECAY)
    with slim.arg_scope(arg_scope):
        net, _ = resnet_v2.resnet_v2(
            tf.cast(preprocess(images), dtype),
            blocks,
            num_classes=NUM_CLASSES,
            is_training=is_training,
            include_root_block=True,
            scope=SCOPE,
        )
    return tf.squeeze(net, [1, 2])


def build_training(images: Any, labels: Any, steps: int) -> tuple[Any, Any, Any]:
    """Build one training step; return the op (batch norm updates included), the loss and the batch's accuracy."""
    logits = build_logits(images, is_training=True)
    tf.losses.sparse_softmax_cross_entropy(labels, logits)
    loss = tf.losses.get_total_loss()
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.AdamOptimizer(tf.train.cosine_decay(LEARNING_RATE, step, steps))
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = optimizer.minimize(loss, global_step=step)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32))
    return train_op, loss, accuracy


def train(images: Pixels, labels: Pixels, prefix: Path, epochs: int) -> None:
    """Train for `epochs` epochs and write the model variables of the last one to a V2 checkpoint at `prefix`."""
    rng = np.random.default_rng(SEED)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(SEED)
        images_in = tf.placeholder(tf.uint8, [BATCH, 8, 8, 3])
        labels_in = tf.placeholder(tf.int32, [BATCH])
        fetches = build_training(images_in, labels_in, epochs * (len(images) // BATCH))
        session.run(tf.global_variables_initializer())
        for epoch in range(1, epochs + 1):
            results = [
                session.run(fetches, {images_in: batch, labels_in: batch_labels})[1:]
                for batch, batch_labels in batches(images, labels, rng)
            ]
            loss, accuracy = np.mean(results, axis=0)
            print(f"epoch {epoch:3d}/{epochs}  loss {loss:.4f}  train accuracy {accuracy:.4f}", flush=True)
        # The model variables alone: no optimizer slots, no global step.
        saver = tf.train.Saver(slim.get_model_variables(), write_version=tf.train.SaverDef.V2)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)


def recorded_logits(prefix: Path, grey: Pixels, dtype: Any) -> npt.NDArray[Any]:
    """Compute TF-Slim's logits [n, 10] from the checkpoint, one image at a time on one thread.

    Both matter to the bits of a float32 result. For ``tf.float64`` the float32 weights and preprocessed pixels are
    widened, which is exact, so the result is the truth that float32 logits approximate.
    """
    reader = tf.train.load_checkpoint(str(prefix))
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        images_in = tf.placeholder(tf.uint8, [1, 8, 8, 3])
        logits = build_logits(images_in, is_training=False, dtype=dtype)
        for variable in slim.get_model_variables():
            weights = reader.get_tensor(variable.op.name)
            variable.load(weights.astype(variable.dtype.as_numpy_dtype), session)
        return np.concatenate([session.run(logits, {images_in: image[np.newaxis]}) for image in as_rgb(grey)])


def source_versions() -> dict[str, str]:
    """Name the versions of the packages that decide the numbers."""
    packages = ("tensorflow", "tf_keras", "tf-slim", "scikit-learn", "numpy")
    return {package: version(package) for package in packages}


def card(prefix: Path, correct: int, trained: int, epochs: int) -> str:
    """Fill in the model card from what was built and measured."""
    shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    rows, size = [], SIZE // 4
    for i, (base_depth, num_units, stride) in enumerate(BLOCKS, start=1):
        size //= stride
        definition = f"base_depth {base_depth}, {num_units} units, stride {stride}"
        rows.append(f"| block{i} | {size}x{size}x{4 * base_depth} | {definition} |")
    return CARD.format(
        parameters=sum(int(np.prod(shape)) for shape in shapes.values()),
        correct=correct,
        count=HELD_OUT,
        accuracy=100 * correct / HELD_OUT,
        block_rows="\n".join(rows),
        classes=NUM_CLASSES,
        scope=SCOPE,
        trained=trained,
        epochs=epochs,
        versions=", ".join(f"{package} {number}" for package, number in source_versions().items()),
    )


def make_model(output: Path, epochs: int) -> None:
    """Train, measure once on the held-out images, and write the package's data files into `output`."""
    train_images, train_labels, held_images, held_labels = load_split()
    output.mkdir(parents=True, exist_ok=True)
    prefix = output / "digits.ckpt"
    started = time.perf_counter()
    train(train_images, train_labels, prefix, epochs)
    print(f"trained in {time.perf_counter() - started:.0f} s")
    predicted = recorded_logits(prefix, held_images, tf.float32).argmax(axis=1)
    correct = int((predicted == held_labels).sum())
    print(f"held-out accuracy {correct}/{HELD_OUT} = {correct / HELD_OUT:.4f}")
    np.savez_compressed(output / "held_out.npz", images=held_images, labels=held_labels)
    (output / "README.md").write_text(card(prefix, correct, len(train_images), epochs), encoding="utf-8")


def record_logits(output: Path, path: Path) -> None:
    """Write TF-Slim's float32 and float64 logits of the held-out images to `path`, with their provenance."""
    prefix = output / "digits.ckpt"
    with np.load(output / "held_out.npz") as held_out:
        grey = held_out["images"]
    shard = prefix.with_name(prefix.name + ".data-00000-of-00001")
    metadata = {
        "format_version": FORMAT_VERSION,
        "seed": SEED,
        "versions": source_versions() | {"python": platform.python_version(), "machine": platform.machine()},
        "checkpoint_sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
        "threads": 1,
        "batch": 1,
        "command": "uv run --group train tools/train_digits.py --output refnet/data/digits"
        " --record tests/slim/goldens/digits_logits.npz",
    }
    logits32, logits64 = (recorded_logits(prefix, grey, dtype) for dtype in (tf.float32, tf.float64))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, logits_float32=logits32, logits_float64=logits64, metadata=json.dumps(metadata))
    print(f"{path}: largest difference of float32 from float64 {np.abs(logits32 - logits64).max():.2e}")


def main() -> None:
    """Read the command line and train, or record."""
    parser = argparse.ArgumentParser(description="Train resnet_v2_digits with TF-Slim on scikit-learn's digits.")
    parser.add_argument(
        "--output", type=Path, required=True, help="directory of the checkpoint and its held-out images"
    )
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help="passes over the training images (default %(default)s)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="NPZ",
        help="train nothing; record TF-Slim's float32 and float64 logits of the checkpoint in --output to NPZ",
    )
    arguments = parser.parse_args()
    tf.disable_eager_execution()
    if arguments.record is None:
        make_model(arguments.output, arguments.epochs)
    else:
        record_logits(arguments.output, arguments.record)


if __name__ == "__main__":
    main()

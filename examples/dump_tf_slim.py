"""Save what every operation of a TF-Slim ResNet gives, for ``refnet compare``.

python dump_tf_slim.py resnet_v2_50 resnet_v2_50.ckpt pixels.npy theirs.npz
refnet compare theirs.npz --weights resnet_v2_50.ckpt --image pixels.npy
"""

import sys

import numpy as np
import tensorflow.compat.v1 as tf

#: The operations whose values are kept.
KEPT = {"Conv2D", "BiasAdd", "FusedBatchNormV3", "Relu", "AddV2", "MaxPool", "Mean", "Squeeze", "Softmax"}


def activations(session, images, pixels):
    """Every operation's output by its name, in a graph whose input is ``images``."""
    operations = [op for op in session.graph.get_operations() if op.type in KEPT and "Initializer" not in op.name]
    outputs = {op.outputs[0].name: op.outputs[0] for op in operations}
    return session.run(outputs, {images: pixels})


if __name__ == "__main__":
    import tf_slim as slim
    from tf_slim.nets import resnet_v1, resnet_v2

    network, checkpoint, pixels, out = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), sys.argv[4]
    library = resnet_v2 if "v2" in network else resnet_v1
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, pixels.shape)
        with slim.arg_scope(library.resnet_arg_scope()):
            getattr(library, network)(images, 1001 if "v2" in network else 1000, is_training=False)
        tf.train.Saver().restore(session, checkpoint)
        np.savez(out, **activations(session, images, pixels))

"""Save what every layer of a Keras ResNet gives, for ``refnet compare``.

python dump_keras.py ResNet50V2 pixels.npy theirs.npz
refnet compare theirs.npz --weights resnet50v2.h5 --image pixels.npy
"""

import sys

import keras
import numpy as np


def activations(model, pixels):
    """Every layer's output by its name; ``pixels`` are normalised floats, [N, H, W, C]."""
    layers = [layer for layer in model.layers if isinstance(layer.output, keras.KerasTensor)]
    outputs = keras.Model(model.input, [layer.output for layer in layers])(pixels, training=False)
    return {layer.name: np.asarray(output) for layer, output in zip(layers, outputs, strict=True)}


if __name__ == "__main__":
    network = getattr(keras.applications, sys.argv[1])(weights="imagenet")
    np.savez(sys.argv[3], **activations(network, np.load(sys.argv[2])))

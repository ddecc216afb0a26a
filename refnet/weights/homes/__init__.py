"""ResNets of other frameworks, renamed to TF-Slim's names: one module and one row per home."""

from __future__ import annotations

from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes import bit, hugging_face, keras, pytorchcv, tf_official, timm, torchvision
from refnet.weights.homes.home import Home

#: The first home that fits reads the tensors.
HOMES = (
    keras.HOME,
    timm.HOME,
    torchvision.HOME,
    hugging_face.HOME,
    pytorchcv.HOME,
    tf_official.HOME,
    bit.HOME,
)


def home_of(loaded: Loaded) -> Home | None:
    """The home of a file's tensors.

    Parameters
    ----------
    loaded : Loaded

    Returns
    -------
    Home or None
        None if the tensors have TF-Slim's names, or names that no home has.
    """
    return next((home for home in HOMES if home.fits(loaded)), None)

"""refnet: the forward pass of ResNets exactly as TF-Slim defines it, with every bit defined."""

# First, for the command line: an interrupt while the rest is imported.
from refnet_kernels.system import interrupts as _interrupts  # noqa: F401 # isort: skip

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refnet.engine import Engine, forward
from refnet.errors import RefnetError, RefnetWarning
from refnet.graph.graph import ArgScope as resnet_arg_scope  # noqa: N813 (TF-Slim's name)
from refnet.images.preprocess import Recipe, preprocess
from refnet.network.resnet_utils import Block, conv2d_same, softmax, stack_blocks_dense, subsample
from refnet.network.resnet_v1 import (
    resnet_v1,
    resnet_v1_18,
    resnet_v1_34,
    resnet_v1_50,
    resnet_v1_101,
    resnet_v1_152,
    resnet_v1_200,
    resnet_v1_basic_block,
    resnet_v1_block,
)
from refnet.network.resnet_v2 import (
    basic,
    bottleneck,
    resnet_v2,
    resnet_v2_18,
    resnet_v2_34,
    resnet_v2_50,
    resnet_v2_101,
    resnet_v2_152,
    resnet_v2_200,
    resnet_v2_basic_block,
    resnet_v2_block,
)
from refnet.weights.files import load_weights, save_weights
from refnet.weights.weights import Weights
from refnet_kernels.system.forks import making

if TYPE_CHECKING:
    from refnet import golden, plots, seeded, summary, testing  # noqa: F401
    from refnet.bulk.job import batch
    from refnet.bulk.predictor import Predictor
    from refnet.comparison.comparison import compare
    from refnet.diagnosis.diagnosis import diagnose
    from refnet.images.files import load_image
    from refnet.images.labels import decode_predictions
    from refnet.keras_model import KerasModel
    from refnet.weights.initial import random_weights

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Engine",
    "KerasModel",
    "Predictor",
    "Recipe",
    "RefnetError",
    "RefnetWarning",
    "Weights",
    "basic",
    "batch",
    "bottleneck",
    "compare",
    "conv2d_same",
    "decode_predictions",
    "diagnose",
    "forward",
    "load_image",
    "load_weights",
    "preprocess",
    "random_weights",
    "resnet_arg_scope",
    "resnet_v1",
    "resnet_v1_18",
    "resnet_v1_34",
    "resnet_v1_50",
    "resnet_v1_101",
    "resnet_v1_152",
    "resnet_v1_200",
    "resnet_v1_basic_block",
    "resnet_v1_block",
    "resnet_v2",
    "resnet_v2_18",
    "resnet_v2_34",
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
    "resnet_v2_200",
    "resnet_v2_basic_block",
    "resnet_v2_block",
    "save_weights",
    "softmax",
    "stack_blocks_dense",
    "subsample",
]

#: What is imported when it is first asked for: modules, and the modules of functions and classes.
_LAZY = {
    "golden": "refnet.golden",
    "plots": "refnet.plots",
    "seeded": "refnet.seeded",
    "summary": "refnet.summary",
    "testing": "refnet.testing",
    "KerasModel": "refnet.keras_model",
    "Predictor": "refnet.bulk.predictor",
    "batch": "refnet.bulk.job",
    "compare": "refnet.comparison.comparison",
    "decode_predictions": "refnet.images.labels",
    "diagnose": "refnet.diagnosis.diagnosis",
    "load_image": "refnet.images.files",
    "random_weights": "refnet.weights.initial",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'refnet' has no attribute {name!r}")
    with making:
        module = import_module(_LAZY[name])
    found = getattr(module, name) if name in __all__ else module
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY, "errors", "__version__", "__doc__", "__all__"})

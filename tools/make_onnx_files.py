"""Write the small ONNX files that PyTorch exports and the tests read; needs PyTorch, timm, onnxscript and onnx.

    python tools/make_onnx_files.py tests/onnx/data

Each network is written by both of PyTorch's exporters: the older one, by TorchScript, which has the values in the file,
and the present one, which has them beside it.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch  # type: ignore[import-not-found]
from timm.layers import create_conv2d, get_norm_act_layer  # type: ignore[import-not-found]
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # type: ignore[import-not-found]
from timm.models.resnetv2 import ResNetV2  # type: ignore[import-not-found]

DEEP = {"stem_width": 4, "stem_type": "deep", "avg_down": True}
NETWORKS = {
    "v1": lambda: ResNet(Bottleneck, (1, 2, 1, 1), 5, channels=(2, 3, 2, 2), **DEEP),
    "v1_basic": lambda: ResNet(BasicBlock, (1, 2, 1, 1), 5, channels=(4, 6, 5, 4), **DEEP),
    "v2": lambda: ResNetV2(
        (1, 2, 1, 1), (8, 12, 8, 8), 5, stem_chs=8, stem_type="deep", avg_down=True, conv_layer=create_conv2d,
        norm_layer=get_norm_act_layer("batchnorm2d", "relu"),
    ),
}  # fmt: skip


def lively(module: Any) -> Any:
    """The module with batch norms that change the values."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for vector, low, high in (
                (norm.weight, 0.5, 1.5), (norm.bias, -0.3, 0.3), (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 1.5),
            ):  # fmt: skip
                torch.nn.init.uniform_(vector, low, high)
    return module.eval()


def export(module: Any, path: Path, dynamo: bool) -> None:
    """Export a module for images of any size, and drop what the exporter notes about the machine."""
    dims = {0: "n", 2: "h", 3: "w"}
    free = torch.export.Dim.DYNAMIC
    sizes = {"dynamic_shapes": (dict.fromkeys(dims, free),)} if dynamo else {"dynamic_axes": {"x": dims}}
    images = torch.zeros(2, 3, 66, 75)
    torch.onnx.export(module, (images,), str(path), dynamo=dynamo, input_names=["x"], external_data=True, **sizes)
    model = onnx.load(path, load_external_data=False)
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del holder.metadata_props[:]
        holder.doc_string = ""
    onnx.save(model, path)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name, make in NETWORKS.items():
        module = lively(make())
        export(module, folder / f"{name}_torchscript.onnx", dynamo=False)
        export(module, folder / f"{name}_dynamo.onnx", dynamo=True)


if __name__ == "__main__":
    main()

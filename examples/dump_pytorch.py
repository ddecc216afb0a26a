"""Save what every module of a PyTorch ResNet gives, for ``refnet compare``: torchvision's, timm's, Hugging Face's.

python dump_pytorch.py resnet50 pixels.npy theirs.npz
refnet compare theirs.npz --weights resnet50.pth --image pixels.npy
"""

import sys
from collections import Counter

import numpy as np
import torch


def activations(model, pixels):
    """Every module's output by its name; ``pixels`` are normalised floats, [N, H, W, C]."""
    found, calls = {}, Counter()

    def keep(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor):
                calls[name] += 1
                called = name if calls[name] == 1 else f"{name}_{calls[name] - 1}"
                # A copy: what follows in place, as many a ReLU, would overwrite it.
                found[called] = output.detach().clone().float().numpy()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model.eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    for handle in handles:
        handle.remove()
    return found


if __name__ == "__main__":
    import torchvision

    network = getattr(torchvision.models, sys.argv[1])(weights="DEFAULT")
    np.savez(sys.argv[3], **activations(network, np.load(sys.argv[2])))

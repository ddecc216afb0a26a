"""Write the small files of PyTorch that the tests read; needs PyTorch, which the tests do not.

    python tools/make_torch_files.py tests/refnet/formats/data

Their values are counted off (0, 1, 2, ...), so `tests/refnet/formats/test_pytorch.py` can say them without PyTorch.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]


def count(*shape: int, dtype: Any = torch.float32, start: int = 0) -> Any:
    """A tensor of 0, 1, 2, ..."""
    return torch.arange(start, start + int(np.prod(shape))).reshape(shape).to(dtype)


def tensors() -> OrderedDict[str, Any]:
    """Tensors of every dtype, and of every place in a storage."""
    base = count(3, 4)
    named = {
        "conv.weight": count(2, 1, 3, 1),
        "channels_last": count(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "base": base,
        "view": base[1:, 1:3],
        "transposed": base.t(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "half": count(3, dtype=torch.float16),
        "bfloat16": count(3, dtype=torch.bfloat16),
        "double": count(3, dtype=torch.float64),
        "parameter": torch.nn.Parameter(count(3)),
        "flag": torch.tensor([True]),
    }
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    named |= {str(dtype).removeprefix("torch."): count(3, dtype=dtype) for dtype in integers}
    return OrderedDict(named)


class Network(torch.nn.Module):
    """A whole module, with a part that is there twice, a buffer that does not last, and one that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(2)
        self.again = self.norm
        self.register_buffer("passing", count(2), persistent=False)
        self.register_buffer("lasting", count(2))
        self.register_buffer("none", None)
        with torch.no_grad():
            self.conv.weight.copy_(count(2, 1, 1, 1))


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.save(tensors(), folder / "zip.pth")
    torch.save(tensors(), folder / "zip_protocol_5.pth", pickle_protocol=5)
    torch.save(tensors(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    network = Network()
    torch.save(network, folder / "module.pth")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network.conv(count(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        network.conv.weight.copy_(count(2, 1, 1, 1))
    checkpoint = {
        "epoch": 3,
        "best": torch.tensor(0.5),
        "random": torch.arange(5, dtype=torch.uint8),
        "args": argparse.Namespace(lr=0.1, names={"a", "b"}),
        "accuracy": np.float64(0.5),
        "log": defaultdict(list, loss=[1.0, 2.0]),
        "state_dict": network.state_dict(),
        "state_dict_ema": {name: tensor + 1 for name, tensor in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, folder / "checkpoint.pth")
    torch.serialization.set_crc32_options(False)
    torch.save({"x": count(2, 2)}, folder / "no_checksums.pth")


if __name__ == "__main__":
    main()

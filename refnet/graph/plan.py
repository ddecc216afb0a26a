"""From the network's operations to the steps that kernels run, and the memory between them.

`fuse` joins operations that one kernel computes together: a convolution with its bias, batch norm, ReLU, residual and
the ReLU of that sum, and with the ``preact`` of the next unit. By the contract a fused step gives the same bits as its
operations one after the other.

`assign_slots` lets values whose lifetimes do not overlap share memory. `parts_of` runs the first steps on a few images
of a batch at a time, so the values between those steps stay in the caches, and take memory for only a few images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from refnet.graph.graph import Tensor
from refnet_kernels.contract import Geometry, NormGeometry


class NormNames(NamedTuple):
    """The variables of a batch norm with stored statistics."""

    mean: str
    variance: str
    gamma: str | None
    beta: str
    epsilon: float

    @classmethod
    def of(cls, operation: Tensor) -> NormNames:
        """The variables that a "batch_norm" operation names."""
        names, geometry = operation.variables, operation.geometry
        assert isinstance(geometry, NormGeometry)
        return cls(names["moving_mean"], names["moving_variance"], names.get("gamma"), names["beta"], geometry.epsilon)


@dataclass
class Step:
    """One kernel's work. Values are named by their tensors' indices in the graph.

    ``geometry`` and ``variables`` are those of its first operation. ``out`` is the value after all of ``bias`` to
    ``sum_relu``; ``preact``, if any, is its batch norm ``next_norm`` and ReLU. Either is None if
    nothing reads it.
    """

    op: str
    inputs: list[int]
    out: int | None
    geometry: Geometry
    variables: Mapping[str, str] = field(default_factory=dict)
    bias: str | None = None
    norm: NormNames | None = None
    relu: bool = False
    shortcut: int | None = None
    sum_relu: bool = False
    next_norm: NormNames | None = None
    preact: int | None = None

    @property
    def reads(self) -> list[int]:
        """Every value that the step reads."""
        return self.inputs if self.shortcut is None else [*self.inputs, self.shortcut]

    @property
    def writes(self) -> list[int]:
        """Every value that the step writes."""
        return [value for value in (self.out, self.preact) if value is not None]


class Plan(NamedTuple):
    """Steps in order, the shape of each value, and the values to return.

    ``aliases`` maps each value that is another one with a new shape to that other one.
    """

    input: int
    steps: list[Step]
    shapes: dict[int, tuple[int, ...]]
    outputs: list[int]
    aliases: dict[int, int]

    @property
    def batch(self) -> int:
        """The number of images."""
        return self.shapes[self.input][0]

    @property
    def returned(self) -> set[int]:
        """The values whose memory holds the outputs at the end."""
        return {self.aliases.get(value, value) for value in self.outputs}


def for_images(step: Step, images: int) -> Step:
    """The step for another number of images."""
    return replace(step, geometry=step.geometry._replace(batch=images))

"""The network as a list of operations, and the steps and the memory that a plan makes of it."""

from refnet.graph.graph import ArgScope, Graph, Tensor

__all__ = ["ArgScope", "Graph", "Tensor"]

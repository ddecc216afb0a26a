"""The network as a list of operations, and its plan: steps and memory."""

from refnet.graph.graph import ArgScope, Graph, Tensor

__all__ = ["ArgScope", "Graph", "Tensor"]

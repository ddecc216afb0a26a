"""The PTX of a kernel, run on the CPU and checked on the way: the proof of a CUDA kernel where there is no GPU.

``parse`` reads the PTX that Numba emits, ``translate`` writes it as C (one function that runs one thread up to its next
barrier), ``run`` compiles that with gcc and runs a whole grid of it over NumPy arrays. Arithmetic is that of PTX: each
operation rounded to nearest even, ``fma`` once, subnormals kept. Whatever is not known exactly is refused: an unknown
opcode, an approximate or flushing one, and a product that ptxas is free to fuse with a sum.

``README.md`` says what is checked and what is not, how to run a kernel of one's own, and how to add an opcode.
"""

from .parse import RefusedError
from .run import Memory, PtxError, PtxKernel

__all__ = ["Memory", "PtxError", "PtxKernel", "RefusedError"]

"""The PTX of a kernel, run on the CPU and checked on the way: the proof of a CUDA kernel where there is no GPU.

``parse`` reads the PTX that Numba emits, ``translate`` writes it as C (one function that runs one thread up to its next
barrier), ``run`` compiles that with gcc and runs a whole grid of it over NumPy arrays. Arithmetic is that of PTX: each
operation rounded to nearest even, ``fma`` once, subnormals kept. Whatever is not known exactly is refused: an unknown
opcode, an approximate or flushing one, and a product that ptxas is free to fuse with a sum.

What is checked, each with an error that says the PTX line, the thread, the block and the array:

=================  ====================================================================================================
``bounds``         each access lies inside one array, one shared variable, or the thread's local memory
``read only``      nothing is stored to an input
``alignment``      each access is aligned to its whole size
``race``           no two threads touch a word of shared memory between two barriers, unless both only read it
``in flight``      nothing touches the destination of a ``cp.async`` before its ``wait_group``; it completes no earlier
``uninitialised``  no register is read before it was written, and no shared or local memory
``barrier``        all the threads of a block meet at the same barrier
``order``          other orders of the threads and of the blocks give the same bits
=================  ====================================================================================================

Not modelled: what global memory holds while blocks run at the same time (other orders of the blocks stand in for that),
warps (an opcode that knows them is refused), and time.
"""

from .parse import RefusedError
from .run import Memory, PtxError, PtxKernel

__all__ = ["Memory", "PtxError", "PtxKernel", "RefusedError"]

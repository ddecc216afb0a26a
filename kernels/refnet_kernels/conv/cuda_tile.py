"""The tiles that the blocks of a CUDA convolution work on, and where a tile's numbers lie in shared memory.

A block makes ``pixels`` x ``channels`` numbers of the output; a thread has the sums of ``rows`` x ``columns`` of them
in registers. Products are added in *steps* of ``depth``. A *run* of `RUN` products is a whole number of steps. What a
step multiplies waits in a *buffer* of shared memory::

    A: numbers of the image                    B: weights

              depth      4 unused                         channels
           +-----------+-----+                       +------------------+
    pixels |           |     |                 depth |                  |
           |           |     |                       +------------------+
           +-----------+-----+
              a_stride

    | A | B |   a buffer: buffer_bytes

One team of threads has ``stages`` buffers, which are read and filled in turn. When all products are added up, the
finished tile takes their place, a row of ``park_stride`` numbers per pixel::

    0                                            stages * buffer_bytes
    | buffer 0 | buffer 1 | buffer 2 |           until the last product
    | finished tile               |              from then on: parked_bytes

Several teams have buffers of their own, and a tile each in which they hand over the sums of a run::

    0                                        finished_start
    | buffers of team 0 | buffers of team 1 | finished tile | sums of team 0 | sums of team 1 |

Rows are longer than their numbers so that threads of a warp read from different banks of shared memory.
"""

from __future__ import annotations

from typing import NamedTuple

from refnet_kernels.contract import RUN

#: Packed weights are filled up to a multiple of this many products with +0: the longest step.
PRODUCTS = 32
#: Weights lie in panels of this many output channels, one vector of them per product: a warp's copies lie side by side.
PANEL = 32
#: Output channels are filled up to a multiple of this, so that every tile finds its weights.
CHANNELS = 128


class Tile(NamedTuple):
    """A block's tile of pixels x output channels, each thread's share of it, and how its numbers come from memory.

    Attributes
    ----------
    pixels, channels : int
        Of the block.
    rows, columns : int
        Of the thread: pixels and channels.
    depth : int
        Products of a step: a run is a whole number of steps.
    stages : int
        Buffers in shared memory: while one is worked on, the copies to all others are on their way.
    blocks : int
        Blocks that a multiprocessor works on at once.
    vectors : bool
        Whether four channels of the image are copied as one, or each number for itself.
    teams : int
        So many teams of threads share a tile. They take runs in turn, through buffers of their own.
    """

    pixels: int
    channels: int
    rows: int
    columns: int
    depth: int
    stages: int
    blocks: int
    vectors: bool
    teams: int = 1

    @property
    def team_threads(self) -> int:
        """Threads of a team."""
        return self.pixels * self.channels // (self.rows * self.columns)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.teams * self.team_threads

    @property
    def a_stride(self) -> int:
        """Floats from a pixel's numbers in a buffer to the next one's."""
        return self.depth + 4

    @property
    def b_start(self) -> int:
        """Floats from the beginning of a buffer to its weights."""
        return self.pixels * self.a_stride

    @property
    def buffer_bytes(self) -> int:
        """Of the numbers of all pixels, and then of all channels, that are copied at a time."""
        return 4 * (self.b_start + self.depth * self.channels)

    @property
    def team_bytes(self) -> int:
        """Of a team's buffers."""
        return self.stages * self.buffer_bytes

    @property
    def park_stride(self) -> int:
        """Floats from a pixel's sums in a parked tile to the next one's."""
        return self.channels + 16

    @property
    def parked_bytes(self) -> int:
        """Of a tile that is parked in shared memory."""
        return 4 * self.pixels * self.park_stride

    @property
    def finished_start(self) -> int:
        """Bytes to the finished tile: it lies in the place of the buffers, or after those of all teams."""
        return self.teams * self.team_bytes if self.teams > 1 else 0

    @property
    def shared_bytes(self) -> int:
        """Of shared memory. After the finished tile, teams have a tile each for the sums that they hand over."""
        if self.teams > 1:
            return self.finished_start + (self.teams + 1) * self.parked_bytes
        return max(self.team_bytes, self.parked_bytes)

    def steps(self, products: int) -> int:
        """How many the first team has; the others have no more, and fill up with zeros."""
        rounds, rest = divmod(products, RUN * self.teams)
        return rounds * (RUN // self.depth) + -(-min(rest, RUN) // self.depth)

    @property
    def name(self) -> str:
        """``"32 x 128, vectors"``."""
        return f"{self.pixels} x {self.channels}, {'vectors' if self.vectors else 'numbers'}"


#: From the one with the most work for each number that it reads to those that spread small problems the most.
TILES = (
    Tile(32, 128, 8, 4, 16, 3, 4, vectors=True),
    Tile(16, 64, 4, 4, 16, 2, 3, vectors=True, teams=4),
    Tile(32, 64, 4, 4, 32, 3, 4, vectors=True),
    Tile(16, 32, 4, 4, 16, 2, 2, vectors=True, teams=8),
    Tile(64, 64, 8, 8, 8, 4, 4, vectors=False),
)
#: The most teams of a tile: the table of taps is filled up to a whole run of each.
TEAMS = max(tile.teams for tile in TILES)

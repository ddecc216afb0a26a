"""The tiles that the blocks of a CUDA convolution work on, and where a tile's numbers are in shared memory.

A block makes ``pixels`` x ``channels`` numbers of the output; a thread has the sums of ``rows`` x ``columns`` of them
in registers. Products are added in *steps* of ``depth``. A *run* of `RUN` products is a whole number of steps. The
numbers that a step multiplies are in a *buffer* of shared memory::

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

Each of several teams has buffers of its own, and a tile in which it passes on the sums of a run::

    0                                        finished_start
    | buffers of team 0 | buffers of team 1 | finished tile | sums of team 0 | sums of team 1 |

Rows are padded so that threads of a warp read from different banks of shared memory.
"""

from __future__ import annotations

from typing import NamedTuple

from refnet_kernels.contract import RUN

#: Packed weights are padded with +0 to a multiple of this many products: the longest step.
PRODUCTS = 32
#: Packed weights are in panels of this many output channels, one vector per product: a warp's copies are adjacent.
PANEL = 32
#: Output channels are padded to a multiple of this, so that every tile finds its weights.
CHANNELS = 128


class Tile(NamedTuple):
    """A block's tile of pixels x output channels, each thread's share of it, and how its numbers come from memory.

    Attributes
    ----------
    pixels, channels : int
        Size of the block's tile.
    rows, columns : int
        Size of a thread's share: pixels and channels.
    depth : int
        Products per step: a run is a whole number of steps.
    stages : int
        Buffers in shared memory: while one is worked on, the copies to all others are under way.
    blocks : int
        Blocks that a multiprocessor works on at once.
    vectors : bool
        Whether four channels of the image are copied as one vector, or each number separately.
    teams : int
        Teams of threads that share a tile. They take turns with the runs, each with buffers of its own.
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
        """Bytes of a buffer: a step's numbers of all pixels, then of all channels."""
        return 4 * (self.b_start + self.depth * self.channels)

    @property
    def team_bytes(self) -> int:
        """Bytes of a team's buffers."""
        return self.stages * self.buffer_bytes

    @property
    def park_stride(self) -> int:
        """Floats from a pixel's sums in a parked tile to the next one's."""
        return self.channels + 16

    @property
    def parked_bytes(self) -> int:
        """Bytes of a tile that is parked in shared memory."""
        return 4 * self.pixels * self.park_stride

    @property
    def finished_start(self) -> int:
        """Bytes to the finished tile: it takes the place of the buffers, or follows those of all teams."""
        return self.teams * self.team_bytes if self.teams > 1 else 0

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory per block. Several teams also have a tile each, for the sums that they pass on."""
        if self.teams > 1:
            return self.finished_start + (self.teams + 1) * self.parked_bytes
        return max(self.team_bytes, self.parked_bytes)

    def steps(self, products: int) -> int:
        """The steps of the first team; the others have no more, and add zeros."""
        rounds, rest = divmod(products, RUN * self.teams)
        return rounds * (RUN // self.depth) + -(-min(rest, RUN) // self.depth)

    @property
    def name(self) -> str:
        """A readable name: ``"32 x 128, vectors"``."""
        return f"{self.pixels} x {self.channels}, {'vectors' if self.vectors else 'numbers'}"


#: From the tile with the most work per number that it reads to those that spread small problems the most.
TILES = (
    Tile(32, 128, 8, 4, 16, 3, 4, vectors=True),
    Tile(16, 64, 4, 4, 16, 2, 3, vectors=True, teams=4),
    Tile(32, 64, 4, 4, 32, 3, 4, vectors=True),
    Tile(16, 32, 4, 4, 16, 2, 2, vectors=True, teams=8),
    Tile(64, 64, 8, 8, 8, 4, 4, vectors=False),
)
#: The most teams of a tile: the table of taps is padded to a whole run per team.
TEAMS = max(tile.teams for tile in TILES)

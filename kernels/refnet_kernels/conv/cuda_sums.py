"""The sums of a thread of a CUDA convolution: its rows x columns of the tile, run by run (rule A1).

Within a run each sum is one chain of products, in registers. The sums of runs are added up in order. With one team they
are in registers too. Several teams take runs in turn: after each round of runs the teams pass on their sums in shared
memory, and all threads of the block add them to the finished tile, those of team 0 first.

All functions here are parts of the kernel. ``s`` are a thread's sums of a run, ``t`` those of all runs so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refnet_kernels.conv.cuda_epilogue import finished_share
from refnet_kernels.conv.cuda_tile import Tile
from refnet_kernels.gpu.code import helper, inlined, load_shared4, register_tile, store_shared4, syncthreads
from refnet_kernels.gpu.launch import TileLayout
from refnet_kernels.gpu.vector import add4, zero4


def sums(tile: Tile) -> tuple[Callable[..., Any], ...]:
    """The sums of a tile's threads. Places are bytes in shared memory, ``start`` is where it begins.

    Returns
    -------
    find_reads : function(start, team, member) -> corner, a_read, b_read
        The first row and column of a thread's sums in the tile; and the places of the first numbers of the image and of
        the weights that it reads from its team's first buffer.
    find_places : function(start, team, corner) -> parked, handed
        The places of a thread's sums in the finished tile, and in the tile that its team passes on.
    zero : function() -> s or t
        All +0.
    accumulate : function(s, a_read, b_read) -> s
        The sums with the products of one step.
    begin_runs : function(start, thread)
        The work before the first run.
    add_runs : function(t, s, handed, start, thread) -> t
        The sums of the runs so far and of one more, or of one more per team.
    end_runs : function(t, parked)
        The work after the last run. Then the finished tile is in shared memory; see `finished_share`.
    """
    a_stride, b_start, team_bytes = tile.a_stride, tile.b_start, tile.team_bytes
    park_stride, parked_bytes, finished_start = tile.park_stride, tile.parked_bytes, tile.finished_start
    # Threads of a warp: 4 x 8, of a team: warps side by side.
    across = tile.channels // tile.columns // 8
    layout = TileLayout(
        tile.rows, tile.columns, tile.depth, a_stride, tile.channels, tile.pixels // tile.rows,
        4 * tile.channels // tile.columns, park_stride,
    )  # fmt: skip
    zero, plus, accumulate, park = register_tile(layout)

    @inlined
    def find_reads(start, team, member):
        # Of a thread's neighbours in the warp, one reads the same row and one the same columns. So reading a vector
        # takes a warp two turns of shared memory, not four.
        lane, warp = member & 31, member >> 5
        first_row = np.int32(warp // across * 4 + ((lane >> 3) & 2) + (lane & 1))
        column4 = np.int32((warp % across * 8 + ((lane >> 1) & 7)) * 4)
        buffers = np.int32(start + team * team_bytes)
        a_read = np.int32(buffers + first_row * a_stride * 4)
        return (first_row, column4), a_read, np.int32(buffers + (b_start + column4) * 4)

    @inlined
    def find_places(start, team, corner):
        first_row, column4 = corner
        parked = np.int32(start + finished_start + (first_row * park_stride + column4) * 4)
        return parked, np.int32(parked + (team + 1) * parked_bytes)

    runs = _runs_of_one_team(plus, park) if tile.teams == 1 else _runs_of_teams(tile, park)
    return find_reads, find_places, zero, accumulate, *runs


def _runs_of_one_team(plus: Callable[..., Any], park: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """``begin_runs``, ``add_runs`` and ``end_runs`` if the sums of all runs are in registers."""

    @helper
    def begin_runs(start, thread):
        """There is nothing to do."""

    @helper
    def add_runs(t, s, handed, start, thread):
        return plus(t, s)

    @helper
    def end_runs(t, parked):
        # The buffers are no longer read; the tile takes their place.
        syncthreads()
        park(t, parked)
        syncthreads()

    return begin_runs, add_runs, end_runs


def _runs_of_teams(tile: Tile, park: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """``begin_runs``, ``add_runs`` and ``end_runs`` if the sums of all runs are in the finished tile."""
    teams, pixels, park_stride, parked_bytes = tile.teams, tile.pixels, tile.park_stride, tile.parked_bytes
    finished, rows_apart = finished_share(tile)

    @helper
    def begin_runs(start, thread):
        """All sums are +0."""
        row, _, place = finished(start, thread)
        while row < pixels:
            store_shared4(np.int32(place + row * np.int32(park_stride * 4)), zero4())
            row = np.int32(row + rows_apart)

    @helper
    def add_runs(t, s, handed, start, thread):
        """One more run of each team, in order: each thread adds up the vectors that it will finish.

        The barrier of the next step keeps the teams from passing on the next sums too early.
        """
        park(s, handed)
        syncthreads()
        row, _, place = finished(start, thread)
        while row < pixels:
            at = np.int32(place + row * np.int32(park_stride * 4))
            total = load_shared4(at)
            for team in range(teams):
                total = add4(total, load_shared4(np.int32(at + np.int32(team + 1) * np.int32(parked_bytes))))
            store_shared4(at, total)
            row = np.int32(row + rows_apart)
        return t

    @helper
    def end_runs(t, parked):
        """There is nothing to do: each thread finishes what it has added up."""

    return begin_runs, add_runs, end_runs

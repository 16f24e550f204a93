"""Which rank reads which partitions: the reference study's deal, which plan, reports and sweeps share.

Layer: `worker.embed.infer`, its bottom; pure. A rank is a share of the partitions in one report, not a process: shards
are cut and worked on as in every other job.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankMap:
    """`partitions` files dealt over `world_size` ranks: rank r gets ceil(left / ranks left) consecutive files.

    So every file has exactly one rank, shares differ by at most one, and ranks beyond the files get none.
    """

    partitions: int
    world_size: int

    def __post_init__(self) -> None:
        if self.partitions < 0 or self.world_size < 1:
            raise ValueError(f"{self.partitions} partitions over {self.world_size} ranks")

    def files_of(self, rank: int) -> range:
        """The numbers of a rank's files, from 0 in plan order."""
        share, larger = divmod(self.partitions, self.world_size)
        start = rank * share + min(rank, larger)
        return range(start, start + share + (rank < larger))

    def rank_of(self, partition: int) -> int:
        """The rank that has a file."""
        share, larger = divmod(self.partitions, self.world_size)
        in_larger = larger * (share + 1)
        return partition // (share + 1) if partition < in_larger else larger + (partition - in_larger) // share

    @property
    def ranks_with_data(self) -> range:
        """The ranks that have a file and so owe a report."""
        return range(min(self.partitions, self.world_size))

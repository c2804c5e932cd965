"""What a prefix cache did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CacheStatistics:
    """What a prefix cache did in this process.

    Args:
        hits: samples, each epoch counted, whose frozen prefix was taken from it.
        misses: samples that went through the whole model.
        recorded: samples whose activations were computed to be kept.
        memory_bytes: the most that was kept in memory.
        file_bytes: the most that was kept in files.
        seconds_saved: the time that recording took, for each hit.
        why_not: why something was not cached that could have been; `""` if all was.
    """

    hits: int = 0
    misses: int = 0
    recorded: int = 0
    memory_bytes: int = 0
    file_bytes: int = 0
    seconds_saved: float = 0.0
    why_not: str = ""

    @property
    def total(self) -> int:
        """Samples, each epoch counted."""
        return self.hits + self.misses

    @property
    def share(self) -> float:
        """Of the samples that came from it, in [0, 1]; 0 if there was none yet."""
        return self.hits / max(1, self.total)

    def __str__(self) -> str:
        text = (
            f"{self.hits:,} of {self.total:,} samples from the prefix cache, "
            f"{self.seconds_saved:.1f} s saved, {self.memory_bytes / 2**20:.0f} MiB of memory"
        )
        if self.file_bytes:
            text += f", {self.file_bytes / 2**20:.0f} MiB of files"
        return f"{text}; not all: {self.why_not}" if self.why_not else text

"""Work in committed chunks: a killed stage loses at most one, and the chunks do not depend on how many ranks share them.

WORK/chunk-000512-000768.jsonl      items 512 to 767, written whole or not at all, by one of the ranks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonlines

from eva_hpc.stages.contract import Context
from eva_hpc.store.records import read_jsonl, write_jsonl

Item = TypeVar("Item")


def spans(count: int, size: int) -> list[tuple[int, int]]:
    """Start and end of the pieces of `size` that `count` items are cut into; the last may be shorter."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def run_chunks(items: Sequence[Item], size: int, context: Context, work: Callable[[Sequence[Item]], list[Any]]) -> None:
    """Do this rank's chunks that are not there yet, reporting items done.

    Raises:
        Interrupted: between chunks, when the stage was told to stop.
    """
    mine = [span for index, span in enumerate(spans(len(items), size)) if index % context.world_size == context.rank]
    total = sum(end - start for start, end in mine)
    done = 0
    for start, end in mine:
        path = _path(context.work, start, end)
        if not _is_whole(path, end - start):
            context.check_stop()
            write_jsonl(path, work(items[start:end]))
        done += end - start
        context.progress(done, total)


def read_chunks(count: int, size: int, work: Path) -> Iterator[Any]:
    """All records of all chunks of `count` items, in order.

    Raises:
        FileNotFoundError: a chunk is missing.
    """
    for start, end in spans(count, size):
        yield from read_jsonl(_path(work, start, end))


def _is_whole(path: Path, count: int) -> bool:
    """Whether a chunk is there with as many records as it must have: what was cut or overwritten since is made again."""
    try:
        return len(read_jsonl(path)) == count
    except (FileNotFoundError, jsonlines.InvalidLineError):
        return False


def _path(work: Path, start: int, end: int) -> Path:
    return work / f"chunk-{start:06d}-{end:06d}.jsonl"

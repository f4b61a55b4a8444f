"""Work in committed chunks, which ranks take from a common heap: whoever is done takes the next, the most expensive first.

WORK/chunk-000512-000768.jsonl          items 512 to 767, written whole or not at all, by one of the ranks
WORK/.claim-000512-000768-5f0c81d2      one of the ranks of this attempt is at them, and writes its number here
WORK/.alive-0                           touched by rank 0 while it is at work

A killed stage loses the chunks it was at. Claims carry the attempt's name, so those of a dead one stand in nobody's way. What a
chunk holds depends neither on the rank that made it nor on how many there are.
"""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from eva_hpc.stages.contract import Context
from eva_hpc.store.keys import digest
from eva_hpc.store.records import read_jsonl, write_jsonl

Item = TypeVar("Item")
Span = tuple[int, int]

_SHARES, _LEAST = 16, 32
"""Tapered chunks have at most this share of what is left, so that ranks end together, and at least so many items."""
_LOOK_EVERY_S = 1.0
"""Seconds between two looks at how many chunks others have done."""
_ALIVE_EVERY_S = 5.0
_FOLLOW_EVERY_S = 0.5


def spans(count: int, size: int, tapered: bool = False) -> list[Span]:
    """Start and end of the pieces of at most `size` that `count` items are cut into.

    Untapered they are all of that size, but for the last; tapered they get smaller towards the end.
    """
    pieces = []
    start = 0
    while start < count:
        piece = min(size, max(_LEAST, (count - start) // _SHARES)) if tapered else size
        pieces.append((start, min(start + piece, count)))
        start += piece
    return pieces


def run_chunks(
    items: Sequence[Item],
    size: int,
    context: Context,
    work: Callable[[Sequence[Item]], list[Any]],
    *,
    cost: Callable[[Item], float] | None = None,
    tapered: bool = False,
) -> None:
    """Do chunks, one after the other, until none is left that neither is there nor has been taken by another rank.

    Args:
        items: what to work on.
        size: the most items of a chunk.
        context: where.
        work: gives the records of a chunk's items, as many as there are.
        cost: what an item costs, in any unit; without it all cost the same.
        tapered: as :func:`spans`; worth it where a rank that finds nothing left would wait for the others.

    Raises:
        Interrupted: between chunks, when the stage was told to stop.
    """
    with Heap(items, size, context, cost, tapered) as heap:
        while (span := heap.take()) is not None:
            start, end = span
            context.check_stop()
            heap.commit(span, work(items[start:end]))


def read_chunks(count: int, size: int, work: Path, *, tapered: bool = False) -> Iterator[Any]:
    """All records of all chunks of `count` items, in order.

    Raises:
        FileNotFoundError: a chunk is missing.
    """
    for span in spans(count, size, tapered):
        yield from read_jsonl(work / _name(span))


def follow_chunks(work: Path, context: Context) -> Iterator[list[Any]]:
    """The records of every chunk in the work folder of another stage that goes on, as they come.

    Raises:
        Interrupted: when told to stop; it has no other end.
    """
    seen: set[str] = set()
    while True:
        context.check_stop()
        new = sorted(path for path in work.glob("chunk-*.jsonl") if path.name not in seen)
        for path in new:
            context.check_stop()
            seen.add(path.name)
            with suppress(FileNotFoundError):  # the other stage has ended, and tidied up
                yield read_jsonl(path)
        if not new:
            time.sleep(_FOLLOW_EVERY_S)


class Heap:
    """The chunks of a stage as one of its ranks sees them: it takes some and commits them. Left, it gives back its claims."""

    def __init__(
        self, items: Sequence[Item], size: int, context: Context, cost: Callable[[Item], float] | None, tapered: bool
    ) -> None:
        every = spans(len(items), size, tapered)
        costs = {span: sum(map(cost, items[slice(*span)])) if cost else span[1] - span[0] for span in every}
        self._context = context
        self._lengths = {_name(span): span[1] - span[0] for span in every}
        self._left = deque(sorted(every, key=lambda span: -costs[span]))
        self._attempt = _this_attempt() if context.world_size > 1 else None
        self._claims: list[Path] = []
        self._before = self._there()
        self._held = self._done = 0
        self._open, self._looked = 0, 0.0

    def __enter__(self) -> Heap:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for claim in self._claims:
            claim.unlink(missing_ok=True)
        if kind is None and self._context.world_size > 1:
            self._context.progress(self._done, self._done)

    def take(self) -> Span | None:
        """A chunk for this rank; None if there is none left, or if the rank holds its share of the work that is open.

        Left are those that are not there as a whole: what was cut or overwritten since is made again.
        """
        while self._left:
            if self._held and self._held * self._context.world_size >= self._still_open():
                return None
            span = self._left.popleft()
            length = span[1] - span[0]
            if not self._claim(span):
                continue
            if _is_whole(self._context.work / _name(span), length):
                if _name(span) in self._before:  # else it is another rank's, which has left since
                    self._done += length
                    self.report()
            else:
                self._held += length
                return span
        return None

    def commit(self, span: Span, records: Sequence[Any]) -> None:
        """Write the records of a chunk that was taken."""
        write_jsonl(self._context.work / _name(span), records)
        length = span[1] - span[0]
        self._held -= length
        self._done += length
        self.report()

    def report(self, ahead: int = 0) -> None:
        """Say how far this rank is: what it has done, with items that are done `ahead` of their chunk, of its share of all."""
        share = -(-self._still_open() // self._context.world_size)
        self._context.progress(self._done + ahead, self._done + max(self._held, share))

    def _still_open(self) -> int:
        """Items of the chunks that no rank has written; where there are other ranks, as it was a moment ago."""
        if self._context.world_size == 1:
            return self._held + sum(end - start for start, end in self._left)
        if time.monotonic() - self._looked > _LOOK_EVERY_S:
            self._open = sum(self._lengths.values()) - sum(self._lengths[name] for name in self._there())
            self._looked = time.monotonic()
        return max(self._open, self._held)

    def _there(self) -> set[str]:
        return self._lengths.keys() & set(os.listdir(self._context.work))

    def _claim(self, span: Span) -> bool:
        """Whether the chunk is now this rank's; of several that try, one gets it."""
        if self._attempt is None:
            return True
        claim = self._context.work / f".claim-{_place(span)}-{self._attempt}"
        try:
            with claim.open("x") as file:  # one process only can make a file, on network file systems too
                file.write(str(self._context.rank))
        except FileExistsError:
            return False
        self._claims.append(claim)
        return True


class SignOfLife:
    """Lets whoever watches the work know that this rank is at it: called as often as one likes, seen every few seconds."""

    def __init__(self, context: Context) -> None:
        self._path = context.work / f".alive-{context.rank}"
        self._shown: float | None = None

    def __call__(self) -> None:
        """It is alive."""
        now = time.monotonic()
        if self._shown is None or now - self._shown > _ALIVE_EVERY_S:
            self._path.touch()
            self._shown = now


def _this_attempt() -> str:
    """A name that the ranks of one attempt have in common, and no other attempt has: of their step, or of their parent."""
    step = [os.environ.get(name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "EVA_HPC_RUN")]
    if step[0] is not None and step[1] is not None:
        return digest(step)[:8]
    parent = os.getppid()
    began = ""
    with suppress(OSError, IndexError):  # where there is no /proc a number that was used before may come again, after a restart
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return digest([platform.node(), parent, began])[:8]


def _is_whole(path: Path, count: int) -> bool:
    """Whether a chunk is there with as many lines as it must have, the last one ended."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return content.endswith(b"\n") and content.count(b"\n") == count


def _name(span: Span) -> str:
    return f"chunk-{_place(span)}.jsonl"


def _place(span: Span) -> str:
    return f"{span[0]:06d}-{span[1]:06d}"

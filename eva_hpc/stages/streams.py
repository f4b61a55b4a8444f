"""Conversations with an engine whose batch stays full: chunks begin and end inside the stream of requests, which never drains.

A conversation is a generator, one for each item. It yields what it asks at once, gets the responses to all of that, may ask
again, and returns the record of its item::

    def talk(engine, prompt):
        [responses] = yield [Ask(Request(engine.render(...), seeds), sampling)]
        return {"prompt_id": prompt["id"], "responses": responses}
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eva_hpc.inference.engine import CONTINUOUS, Engine, EngineName, Request, Sampling
from eva_hpc.stages.chunks import Heap, SignOfLife, Span, read_chunks
from eva_hpc.stages.contract import Context
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.store.records import Response

Item = TypeVar("Item")

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly: enough to tell what takes longer."""
_CONTINUOUS_ITEMS = 16
"""Items of a chunk, at most, where chunks need not be large for the engine's sake: a killed rank loses those it is at."""


class Ask(NamedTuple):
    """A request, and how to sample its responses."""

    request: Request
    sampling: Sampling


Talk = Generator[list[Ask], list[list[Response]], Any]


def run_stream(
    items: Sequence[Item],
    size: int,
    context: Context,
    lazy: LazyEngine,
    *,
    talk: Callable[[Engine, Item], Talk],
    cost: Callable[[Item], float],
) -> None:
    """Hold the conversations of the chunks that are left, as many at once as the engine takes.

    A chunk is written once its items are all there. :func:`read_stream` reads them.

    Raises:
        Interrupted: between two steps of the engine, when the stage was told to stop; conversations that go on are lost.
    """
    with Heap(items, _chunk(size, lazy.continuous), context, cost, tapered=lazy.continuous) as heap:
        span = heap.take()
        if span is None:
            return
        context.check_stop()
        engine = lazy.get()
        stream, alive = _Stream(engine, heap), SignOfLife(context)
        waiting = deque([(span, index) for index in range(*span)])
        try:
            while True:
                context.check_stop()
                alive()
                while engine.hungry:
                    # Batches that do not change hold one chunk: what they round must not depend on which chunks come together.
                    more = not waiting and (lazy.continuous or not stream.talks)
                    if more and (span := heap.take()) is not None:
                        waiting.extend((span, index) for index in range(*span))
                    if not waiting:
                        break
                    span, index = waiting.popleft()
                    stream.begin(span, index, talk(engine, items[index]))
                if not stream.talks:  # an engine with nothing to do is hungry: there is nothing left
                    return
                stream.step()
        finally:
            engine.drop()


def read_stream(count: int, size: int, work: Path, engine: EngineName) -> Iterator[Any]:
    """The records of `count` items, in order, that :func:`run_stream` wrote with this engine.

    Raises:
        FileNotFoundError: a chunk is missing.
    """
    continuous = engine in CONTINUOUS
    return read_chunks(count, _chunk(size, continuous), work, tapered=continuous)


def _chunk(size: int, continuous: bool) -> int:
    return min(size, _CONTINUOUS_ITEMS) if continuous else size


class _Open:
    """A conversation that goes on: what it waits for, and how much of that is missing."""

    def __init__(self, span: Span, talk: Talk) -> None:
        self.span = span
        self.talk = talk
        self.responses: list[list[Response]] = []
        self.missing = 0


class _Stream:
    """The conversations that go on, and the chunks they belong to."""

    def __init__(self, engine: Engine, heap: Heap) -> None:
        self.talks: dict[int, _Open] = {}
        self._engine = engine
        self._heap = heap
        self._records: dict[Span, dict[int, Any]] = {}

    def begin(self, span: Span, index: int, talk: Talk) -> None:
        """Start the conversation of an item."""
        self.talks[index] = _Open(span, talk)
        self._go_on(index, None)

    def step(self) -> None:
        """Let the engine work, and conversations go on that have all they asked for."""
        for (index, place), responses in self._engine.step():
            one = self.talks[index]
            one.responses[place] = responses
            one.missing -= 1
            if one.missing == 0:
                self._go_on(index, one.responses)

    def _go_on(self, index: int, responses: list[list[Response]] | None) -> None:
        one = self.talks[index]
        asks: list[Ask] = []
        try:
            while not asks:
                asks = next(one.talk) if responses is None else one.talk.send(responses)
                responses = []
        except StopIteration as end:
            del self.talks[index]
            self._finish(one.span, index, end.value)
            return
        one.responses, one.missing = [[] for _ in asks], len(asks)
        for place, ask in enumerate(asks):
            self._engine.submit((index, place), ask.request, ask.sampling)

    def _finish(self, span: Span, index: int, record: Any) -> None:
        records = self._records.setdefault(span, {})
        records[index] = record
        if len(records) == span[1] - span[0]:
            self._heap.commit(span, [records[item] for item in range(*span)])
            del self._records[span]
        self._heap.report(sum(map(len, self._records.values())))

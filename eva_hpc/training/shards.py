"""ZeRO-3 shards of a checkpoint, read by another number of ranks than wrote them.

Each of w ranks holds ceil(n / w) of a parameter's n numbers, the last ones padded. What it holds of the parameters of a group
lies end to end in one vector: one of weights, and one for each state of the optimiser. Of the parameters a, of 5 numbers, and
b, of 2, hold

    2 ranks     a0 a1 a2 b0 | a3 a4 -- b1
    4 ranks     a0 a1 b0 | a2 a3 b1 | a4 -- -- | -- -- --

so a rank copies its numbers from the files of those who held them, the same to the last bit. Nothing is converted on the disk,
and a rank takes nothing but its own part into memory.
"""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from eva_hpc.training.distributed import Ranks

if TYPE_CHECKING:
    import deepspeed


_Shapes = Sequence[Mapping[str, torch.Size]]
"""Of whole parameters, group by group, by name; the order is that of their parts in the group's vectors."""

_KINDS = ("model", "optim")
"""Of the files of a rank."""


class Piece(NamedTuple):
    """`length` numbers of a parameter, from index `there` of rank `owner`'s part, that go to index `here` of one's own part."""

    owner: int
    there: int
    here: int
    length: int


def pieces(size: int, rank: int, world_size: int, written_by: int) -> Iterator[Piece]:
    """Where a rank finds its part of a parameter of `size` numbers that `written_by` ranks wrote; none if it is padding."""
    mine, theirs = math.ceil(size / world_size), math.ceil(size / written_by)
    begin, end = rank * mine, min(size, (rank + 1) * mine)
    at = begin
    while at < end:
        owner = at // theirs
        length = min(end, (owner + 1) * theirs) - at
        yield Piece(owner, at - owner * theirs, at - begin, length)
        at += length


def damage(folder: Path, written_by: int, ranks: Ranks) -> str | None:
    """What is wrong with a file of a checkpoint, by the checksums in it, if anything; each rank reads its share of the files.

    Neither torch nor DeepSpeed looks at them.

    Raises:
        OSError: the file system does not give a file now; it may another time.
    """
    for writer in range(ranks.rank, written_by, ranks.world_size):
        for kind in _KINDS:
            try:
                with zipfile.ZipFile(_file(folder, writer, kind)) as archive:
                    if broken := archive.testzip():
                        return f"is damaged: {broken} of rank {writer}'s {kind} states has another checksum than when written"
            except (zipfile.BadZipFile, FileNotFoundError) as error:
                return f"is damaged: rank {writer}'s {kind} states cannot be read ({error})"
    return None


def load(engine: deepspeed.DeepSpeedEngine, folder: Path, written_by: int, ranks: Ranks) -> None:
    """Give the engine the weights, the states of the optimiser and the count of steps of a checkpoint.

    Hyper-parameters of the optimiser stay the engine's. So do the weights that are not trained.

    Args:
        engine: of the model and the rule that the checkpoint is of.
        folder: the checkpoint.
        written_by: how many ranks wrote it.
        ranks: all of them must call this.

    Raises:
        OSError, ValueError: on every rank if any cannot read its part, or the checkpoint is of other parameters.
    """
    optimiser = engine.optimizer
    optimiser.checkpoint_event_prologue()
    problem: Exception | None = None
    try:
        saved = _opened(_file(folder, 0, "model"))
        state = _own_part(engine, saved["param_shapes"], folder, written_by, ranks)
        engine.load_module_state_dict({"module": saved["module"]}, strict=False)  # buffers: parameters are empty there
    except Exception as error:
        problem = error
    failed = int(ranks.sum(torch.tensor(float(problem is not None))).item())
    if problem is not None:
        raise problem
    if failed:
        raise OSError(f"{failed} of {ranks.world_size} ranks cannot read their part")
    optimiser.load_state_dict({ranks.rank: state})
    optimiser.checkpoint_event_epilogue()
    for counter in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, counter, saved[counter])


def _own_part(
    engine: deepspeed.DeepSpeedEngine, saved_shapes: _Shapes, folder: Path, written_by: int, ranks: Ranks
) -> dict[str, Any]:
    """What ZeRO-3's optimiser on this rank would have written: the same but for weights and states."""

    @functools.cache
    def written(writer: int) -> list[dict[str, Any]]:
        return _groups(_opened(_file(folder, writer, "optim"))["optimizer_state_dict"])

    shapes = engine._get_zero_param_shapes()
    here, there = _places(shapes, ranks.world_size), _places(saved_shapes, written_by)
    if {name: place.size for name, place in here.items()} != {name: place.size for name, place in there.items()}:
        raise ValueError(f"{folder.name} is of other parameters than those that are trained")
    own: dict[str, Any] = engine.optimizer.state_dict()
    groups: list[dict[str, Any]] = []
    for flat, members in zip(own["fp32_flat_groups"], shapes, strict=True):
        # The counts of steps are those of all parameters, and on a rank that holds nothing but padding too.
        first = written(0)[there[next(iter(members))].group]
        groups.append(
            {
                key: torch.zeros_like(flat, dtype=value.dtype, device="cpu", requires_grad=False)
                if _is_vector(value)
                else _count(value, engine.optimizer.optimizer)
                for key, value in first.items()
            }
        )
    for name, place in here.items():
        for piece in pieces(place.size, ranks.rank, ranks.world_size, written_by):
            theirs = written(piece.owner)[there[name].group]
            for key, vector in groups[place.group].items():
                if _is_vector(vector):
                    values = theirs[key].narrow(0, there[name].start + piece.there, piece.length)
                    vector.narrow(0, place.start + piece.here, piece.length).copy_(values)
    own["fp32_flat_groups"] = [group.pop("weights") for group in groups]
    own["optimizer_state_dict"]["state"] = dict(enumerate(groups))
    return own


class _Place(NamedTuple):
    """Where a rank's part of a parameter begins in the vectors of its group, and the size of the whole parameter."""

    group: int
    start: int
    size: int


def _places(shapes: _Shapes, world_size: int) -> dict[str, _Place]:
    places = {}
    for group, members in enumerate(shapes):
        start = 0
        for name, shape in members.items():
            places[name] = _Place(group, start, shape.numel())
            start += math.ceil(shape.numel() / world_size)
    return places


def _groups(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each group the vector of weights, under "weights", and the states of the optimiser under their own names."""
    states = state["optimizer_state_dict"]["state"]
    return [{"weights": flat, **states[group]} for group, flat in enumerate(state["fp32_flat_groups"])]


def _is_vector(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 1


def _count(value: Any, optimiser: torch.optim.Optimizer) -> Any:
    """A count of steps: torch's optimisers want a tensor, DeepSpeed's own an int. Offloading may have been turned on or off."""
    return torch.tensor(float(value)) if type(optimiser).__module__.startswith("torch.") else int(value)


def _file(folder: Path, writer: int, kind: str) -> Path:
    """The file of a rank. DeepSpeed puts the precision before the name of one kind."""
    name = f"zero_pp_rank_{writer}_mp_rank_00_{kind}_states.pt"
    found = [folder / f"{prefix}{name}" for prefix in ("", "bf16_") if (folder / f"{prefix}{name}").exists()]
    if not found:
        raise FileNotFoundError(f"{folder / name} is missing")
    return found[0]


def _opened(path: Path) -> Any:
    """The content of a file, of which only what is copied is read."""
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)

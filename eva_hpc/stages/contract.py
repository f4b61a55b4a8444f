"""What a stage is: a frozen spec whose fields are its key, a way to run in parallel, and one function `run`.

A stage module defines::

    class Spec(StageSpec):                      # frozen; the fields are the key
        stage: ClassVar[str] = "score"
        ...

    def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts: ...

and may define ``finish(spec, inputs, out, context) -> Counts``, which runs once, after `run` has ended well on every rank,
to put together what the ranks wrote; its counts then stand for the stage. It may also define ``check(folder) -> str | None``,
which says why a committed artifact cannot be used any more, and ``ahead(spec, inputs, out, context)``, which runs beside the
stage that makes one of its inputs and goes on until it is told to stop: what it has done by then `run` finds. A new stage is
one such module plus one line in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from eva_hpc.config.section import LATER
from eva_hpc.config.site import Engine, Resources
from eva_hpc.inference.engine import EngineName
from eva_hpc.store.artifacts import Store
from eva_hpc.training.interrupt import Interrupted as Interrupted

Parallel = Literal["one", "shards", "ranks"]
Inputs = Mapping[str, Path]

SAVED = 75
"""Exit code of a process that was told to stop, has saved its work and can go on when started again (EX_TEMPFAIL)."""

GRACE_S = 30.0
"""Seconds that a stage which is told to stop has for saving, where the site gives no other time."""

# Where something lies, how fast it is asked for, what it costs and how much of it may be missing change no result: fingerprints
# of the content stand for locations.
NOT_IN_KEYS = {
    "path",
    "files",
    "concurrency",
    "api_key_env",
    "base_url",
    "attempts",
    "timeout_s",
    "price",
    "least_answered",
}


class StageFailed(Exception):
    """The stage cannot give a result, for a reason the user can act on; the message says which."""


class StageUnavailable(Exception):
    """Something outside, e.g. a judge's server, does not answer now; what was done is kept, and it may be tried again."""


@dataclass(frozen=True)
class Counts:
    """Records in, out and set aside by reason. Records set aside are kept in ``set_aside.jsonl`` of the artifact."""

    read: int
    written: int
    set_aside: Mapping[str, int] = field(default_factory=dict)


class StageSpec(BaseModel):
    """Base of all specs. `nested` names the fields in which artifacts contain those of smaller values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: ClassVar[str]
    version: ClassVar[int] = 1
    nested: ClassVar[tuple[str, ...]] = ()

    @property
    def parallel(self) -> Parallel:
        """``one`` process, independent ``shards``, or ``ranks`` that talk to each other through torch.distributed."""
        return "one"

    @property
    def ahead_of(self) -> str | None:
        """The input whose records it can take up as they are made, by the `ahead` of its module; None: it has to wait."""
        return None

    @property
    def policy_engine(self) -> EngineName | None:
        """The engine in which it runs its input ``policy``; None if it runs none."""
        return None

    def parameters(self) -> dict[str, Any]:
        """The JSON values that enter the key: all but locations, and but :func:`later` fields at their default."""
        values: dict[str, Any] = _in_key(self, self.model_dump(mode="json"))
        return values


def _in_key(value: Any, dumped: Any) -> Any:
    """What of a dumped value enters the key; `value` is what it was dumped from."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = [
            name for name in dumped if name not in NOT_IN_KEYS and not _is_later_default(fields[name], getattr(value, name))
        ]
        return {name: _in_key(getattr(value, name), dumped[name]) for name in kept}
    if isinstance(value, Mapping):
        return {name: _in_key(value[name], item) for name, item in dumped.items() if name not in NOT_IN_KEYS}
    if isinstance(value, list | tuple):
        return [_in_key(item, of_dump) for item, of_dump in zip(value, dumped, strict=True)]
    return dumped


def _is_later_default(field: FieldInfo, value: Any) -> bool:
    return isinstance(field.json_schema_extra, dict) and LATER in field.json_schema_extra and value == field.get_default()


@dataclass(frozen=True)
class Context:
    """What a stage may know of where it runs. Nothing here may change its result, beyond float rounding.

    `grace_s` is how many seconds it has to save and leave once `stop()` says so.
    """

    rank: int
    world_size: int
    local_rank: int
    master: tuple[str, int] | None
    resources: Resources
    engine: Engine
    work: Path
    store: Store
    progress: Callable[[int, int], None]
    stop: Callable[[], bool]
    grace_s: float = GRACE_S

    def check_stop(self) -> None:
        """Leave, if the stage was told to.

        Raises:
            Interrupted: call this only where everything done so far is saved.
        """
        if self.stop():
            raise Interrupted

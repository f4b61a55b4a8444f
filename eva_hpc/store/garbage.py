"""What nobody refers to any more: artifacts, caches and code snapshots below a root that no recorded plan needs.

ROOT/NAME/plans/*.json        every plan that a sweep ever had; what they name is needed, finished or not
ROOT/NAME/ledger/*.jsonl      name the code snapshots that jobs ran
ROOT/store/STAGE/…            artifacts, and what corrupt ones left behind
ROOT/store/cache/NAME/…       spares work while there is any to do
ROOT/code/DIGEST/             code snapshots

A launcher records its plan before it looks at what is there, under a lock that removal holds alone: so either removal sees the
plan, or the launcher sees what removal has left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.store.artifacts import CLAIM, MANIFEST, WORK, Store
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.keys import Identity

LOCK = "plans.lock"
_TRASH = "trash-"
_YOUNG_S = 24 * 3600.0
"""A snapshot that was taken or used since may belong to a sweep whose ledger does not say so yet."""


class UnreadablePlans(Exception):
    """It cannot be told what a sweep needs; the message says which, and what to do."""


@dataclass(frozen=True)
class Needed:
    """What the recorded sweeps refer to: artifacts, and code snapshots by digest."""

    artifacts: frozenset[Identity]
    snapshots: frozenset[str]


@dataclass(frozen=True)
class Garbage:
    """Something that can go, and why: "unreferenced", "unfinished", "corrupt", "cache", "code" or "removed before"."""

    path: Path
    why: str
    bytes: int


@contextmanager
def plans_held(store: Store, *, alone: bool = False) -> Iterator[None]:
    """Hold the lock on plans: together with other launchers to record one, `alone` to remove what none needs. Waits for it.

    Raises:
        OSError: the file system has no locks.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    with (store.root / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def needed(root: Path) -> Needed:
    """What all sweeps below a root refer to.

    Raises:
        UnreadablePlans: a plan or a ledger cannot be read, or a sweep has none.
    """
    artifacts: set[Identity] = set()
    snapshots: set[str] = set()
    for results in sorted(path for path in root.glob("*") if path.is_dir() and path.name not in ("store", "code")):
        plans = sorted((results / "plans").glob("*.json"))
        ledgers = sorted((results / "ledger").glob("*.jsonl"))
        if not plans and (ledgers or (results / "experiment.json").exists()):
            raise UnreadablePlans(f"{results} has no recorded plan: type its sweep's command again, or remove the folder")
        for path in plans:
            artifacts |= _named_in(path)
        for path in ledgers:
            snapshots |= _snapshots(path)
    return Needed(frozenset(artifacts), frozenset(snapshots))


def garbage(root: Path, needs: Needed, is_alive: Callable[[str], bool]) -> list[Garbage]:
    """All that can go, in the order of its paths. Looks, and removes nothing.

    Args:
        root: the folder of a site.
        needs: what its sweeps refer to.
        is_alive: whether the owner of a claim may still be at work.
    """
    store = Store(root / "store")
    inventory = Inventory(store)
    kept = {store.folder(identity) for identity in needs.artifacts}
    complete = True
    for identity in needs.artifacts:
        if identity.nested:
            artifact = inventory.find(identity)  # may be a larger one
            if artifact is not None:
                kept.add(artifact.folder)
            complete &= artifact is not None
        else:
            complete &= (store.folder(identity) / MANIFEST).exists()
    found = [(path, why) for path in _folders(store.root) if (why := _why(path, kept, is_alive))]
    if complete:
        found += [(path, "cache") for folder in _children(store.root / "cache") for path in _children(folder)]
    now = time.time()
    for path in _children(root / "code"):
        if path.name.startswith(_TRASH):
            found.append((path, "removed before"))
        elif path.name not in needs.snapshots and now - path.lstat().st_mtime > _YOUNG_S:
            found.append((path, "code"))
    return [Garbage(path, why, _size(path)) for path, why in sorted(found)]


def remove(root: Path, wanted: Collection[Garbage], is_alive: Callable[[str], bool]) -> tuple[list[Garbage], list[str]]:
    """Remove what is still garbage of what was found to be; returns what has gone, and problems.

    Under the lock it looks again and renames only, which takes no time; the space is freed afterwards.

    Raises:
        UnreadablePlans: see :func:`needed`; nothing was removed.
        OSError: the file system has no locks; nothing was removed.
    """
    paths = {one.path for one in wanted}
    gone: list[Garbage] = []
    problems: list[str] = []
    trash: list[Path] = []
    with plans_held(Store(root / "store"), alone=True):
        for one in garbage(root, needed(root), is_alive):
            if one.path not in paths:
                continue
            target = one.path.with_name(f"{_TRASH}{uuid.uuid4().hex[:8]}")
            try:
                one.path.rename(target)
            except OSError as error:
                problems.append(f"{one.path}: {error.strerror}")
                continue
            trash.append(target)
            gone.append(one)
    for path in trash:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return gone, problems


def _folders(store: Path) -> Iterator[Path]:
    """What lies in the folders of all stages."""
    for stage in _children(store):
        if stage.is_dir() and stage.name != "cache":
            yield from (path for path in _children(stage) if path.is_dir())


def _why(path: Path, kept: Collection[Path], is_alive: Callable[[str], bool]) -> str | None:
    """Why a folder of a stage can go; None if it cannot."""
    if path in kept:
        return None
    if path.name.startswith(_TRASH):
        return "removed before"
    if path.name.startswith("corrupt-"):
        return "corrupt"
    try:
        if is_alive((path / WORK / CLAIM).read_text()):
            return None
    except FileNotFoundError:
        pass
    return "unreferenced" if (path / MANIFEST).exists() else "unfinished"


def _named_in(plan: Path) -> set[Identity]:
    """The artifacts that a plan names."""
    try:
        named = set(_identities(orjson.loads(plan.read_bytes())))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnreadablePlans(f"{plan} cannot be read ({error}): type its sweep's command again, or remove the file") from None
    if not named:
        raise UnreadablePlans(f"{plan} names no artifact: type its sweep's command again, or remove the file")
    return named


def _identities(value: Any) -> Iterator[Identity]:
    """Everything in a plan that names an artifact, wherever it stands."""
    if isinstance(value, dict):
        if value.keys() == {"stage", "family", "nested"}:
            pairs = value["nested"].items() if isinstance(value["nested"], dict) else value["nested"]
            yield Identity(value["stage"], value["family"], tuple((field, number) for field, number in pairs))
        else:
            yield from (identity for item in value.values() for identity in _identities(item))
    elif isinstance(value, list):
        yield from (identity for item in value for identity in _identities(item))


def _snapshots(ledger: Path) -> set[str]:
    """The snapshots that the launches in a ledger file ran from."""
    try:
        lines = [line for line in ledger.read_bytes().splitlines(keepends=True) if b'"launched"' in line and line[-1:] == b"\n"]
        return {event["snapshot"] for event in map(orjson.loads, lines) if event.get("snapshot")}
    except (OSError, orjson.JSONDecodeError) as error:
        raise UnreadablePlans(f"{ledger} cannot be read: {error}") from None


def _children(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _size(path: Path) -> int:
    """Bytes of a file or of all files in a folder; what goes meanwhile counts nothing."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total

"""The data folder: where the official files of the benchmarks lie on this machine, and whether they are what they should be.

It is EVA_HPC_DATA, else ``eva_hpc/data`` in the user's cache folder. Below it files lie unpacked, as the catalogue names them::

    alpaca_eval/model_outputs.json
    mt_bench/reference_answer/gpt-4.jsonl
"""

from __future__ import annotations

import errno
import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eva_hpc.benchmarks.official import catalogue
from eva_hpc.benchmarks.official.data_file import DataFile, StandIn
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.artifacts import write_atomically

VARIABLE = "EVA_HPC_DATA"

State = Literal["official", "stand-in", "absent", "other"]
"""What lies at the place of an official file; "other" is a content that is neither the official one nor a stand-in."""


@dataclass(frozen=True)
class Found:
    """What lies at `path`, the place of a file. `note` says what in a stand-in is not exact, or how another content differs."""

    file: DataFile
    path: Path
    state: State
    note: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it is official or a stand-in."""
        return self.state in ("official", "stand-in")


def data_folder() -> Path:
    """The absolute path of the data folder, there or not."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path("~/.cache").expanduser()) / "eva_hpc" / "data"


def look(file: DataFile, folder: Path | None = None) -> Found:
    """Read what lies at the place of a file and compare it with the catalogue.

    Raises:
        ConfigError: it cannot be read.
    """
    path = (folder or data_folder()) / file.path
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Found(file, path, "absent")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if file.is_official(content):
        return Found(file, path, "official")
    if stand_in := file.stand_in(content):
        return Found(file, path, "stand-in", stand_in.note)
    return Found(file, path, "other", f"found {file.found(content)}; must be {file.checksum}")


def place(set_: str, role: str, model: str | None = None) -> Path:
    """Where an official file lies, there or not; roles are those of the catalogue.

    Raises:
        LookupError: the catalogue has no such file, or several.
    """
    return data_folder() / the_file(set_, role, model).path


def official(set_: str, role: str, model: str | None = None) -> Path:
    """An official file that is there and has the right content, or a stand-in for it.

    Raises:
        ConfigError: it is not there, or has another content; says how to get it.
        LookupError: the catalogue has no such file, or several.
    """
    found = look(the_file(set_, role, model))
    if found.usable:
        return found.path
    fetch = f"eva-hpc data fetch {set_}{' --calibration' if found.file.calibration else ''}"
    if found.state == "absent":
        name = Path(found.file.path).relative_to(set_)
        where = f"{name} is not in {data_folder() / set_}"
        raise ConfigError(f"{set_}: {where}; {fetch} gets it (or --from DIR takes a local copy)")
    raise ConfigError(f"{found.path}: {found.note}; {fetch} gets the official one and keeps this one beside it")


def official_or_none(set_: str, role: str, model: str | None = None) -> Path | None:
    """As :func:`official`, but None where the file is not there or has another content."""
    found = look(the_file(set_, role, model))
    return found.path if found.usable else None


def answers(set_: str) -> dict[str, Path]:
    """By model, the answers at hand of models with published numbers; ``eva-hpc data fetch --calibration`` gets them."""
    files = [file for file in catalogue.files_of([set_], calibration=True) if file.role == "answers"]
    return {file.model: found.path for file in files if file.model and (found := look(file)).usable}


def stand_in_at(path: Path) -> StandIn | None:
    """The stand-in that a file is, wherever it lies, plain or gzip; its note belongs beside every number that rests on it."""
    return catalogue.stand_in_of(_content(path))


def notes_on(set_: str, **files: Path | None) -> list[str]:
    """What belongs beside numbers that rest on these files, given by role, wherever they lie: that one is a stand-in, with what
    in it is not exact, or that it is not the official file at all."""
    notes = []
    for role, path in files.items():
        if path is None:
            continue
        file, stand_in = the_file(set_, role), stand_in_at(path)
        if stand_in is not None:
            notes.append(stand_in.note)
        elif not file.is_official(_content(path)):
            notes.append(f"{path.name} is not the official {Path(file.path).name}")
    return notes


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError):
        return b""


def put(file: DataFile, content: bytes, folder: Path) -> Path | None:
    """Write a file to its place, whole or not at all; returns where another content that lay there is kept, if any did.

    Raises:
        ConfigError: nothing can be written there.
        OSError: the disk is full.
    """
    before = look(file, folder)
    try:
        before.path.parent.mkdir(parents=True, exist_ok=True)
        kept = before.path.rename(aside(before.path)) if before.state == "other" else None
        write_atomically(before.path, content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"{before.path}: {error.strerror}; --to DIR or {VARIABLE} names another data folder") from None
    return kept


def aside(path: Path) -> Path:
    """Where a content that should not be used is kept, beside its place."""
    return path.with_name(f"{path.name}.wrong")


def the_file(set_: str, role: str, model: str | None = None) -> DataFile:
    """The file of a set for a role.

    Raises:
        LookupError: the catalogue has no such file, or several.
    """
    files = [file for file in catalogue.files_of([set_], calibration=True) if file.role == role]
    if model is not None:
        files = [file for file in files if file.model == model]
    if len(files) != 1:
        known = [f"{file.role} {file.model or ''}".strip() for file in catalogue.files_of([set_], calibration=True)]
        wanted = f"{role} {model or ''}".strip()
        raise LookupError(f"{set_} has {len(files)} files for {wanted!r}; it has {', '.join(known)}")
    return files[0]

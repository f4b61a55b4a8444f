"""What is known of an official file: where it is from, what it is for, and how its content is recognised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class StandIn:
    """A file that is used in place of an official one; `note` says in one line what in it is exact and what is not."""

    sha256: str
    size: int
    note: str


@dataclass(frozen=True)
class DataFile:
    """One official file.

    `set` is what a user fetches by name, `path` where the file lies below the data folder. `role` says what it is for, and
    `model` whose answers it holds, where a set has several files of one role. Its content is known by its sha256, or, where
    only that is published, by the id that git gives to it. `size` is in bytes, None if it is not known.
    """

    set: str
    path: str
    role: str
    url: str
    licence: str
    sha256: str | None = None
    git_blob: str | None = None
    size: int | None = None
    model: str | None = None
    calibration: bool = False
    stand_ins: tuple[StandIn, ...] = ()

    @property
    def checksum(self) -> str:
        """For messages, e.g. ``sha256 83db54…``."""
        return f"sha256 {self.sha256}" if self.sha256 else f"git blob {self.git_blob}"

    def is_official(self, content: bytes) -> bool:
        """Whether this is the content of the official file."""
        return sha256(content) == self.sha256 if self.sha256 else git_blob(content) == self.git_blob

    def stand_in(self, content: bytes) -> StandIn | None:
        """The stand-in that has this content, if any."""
        found = sha256(content) if self.stand_ins else None
        return next((stand_in for stand_in in self.stand_ins if stand_in.sha256 == found), None)

    def found(self, content: bytes) -> str:
        """The checksum of a content, of the kind and in the words of :attr:`checksum`."""
        return f"sha256 {sha256(content)}" if self.sha256 else f"git blob {git_blob(content)}"


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    """What ``git hash-object`` prints for a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

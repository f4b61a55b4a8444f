"""Only one process at a time does something with a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eva_hpc.config.errors import ConfigError


class Busy(ConfigError):
    """Another process is at work in the folder."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder: a local sweep its store, a submission its results.

    On a file system whose locks do not reach other machines two launchers may both go on: claims then keep their jobs apart.

    Raises:
        Busy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "in-use.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another sweep is at work in {folder}: wait for it, or choose another site.root") from None
        yield

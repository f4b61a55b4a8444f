"""Only one process at a time does something with a folder."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eva_hpc.config.errors import ConfigError


class Busy(ConfigError):
    """Another process is at work in the folder."""


@contextmanager
def alone(folder: Path, patience_s: float = 0) -> Iterator[None]:
    """Hold a folder: a local sweep its store, a submission its results.

    On a file system without locks, or whose locks do not reach other machines, two launchers may both go on: claims then keep
    their jobs apart.

    Args:
        folder: is made.
        patience_s: how long to wait for another process.

    Raises:
        Busy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience_s
    with (folder / "in-use.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    text = f"another sweep is at work in {folder}: wait for it, or choose another site.root"
                    raise Busy(text) from None
                time.sleep(0.5)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                break
        yield

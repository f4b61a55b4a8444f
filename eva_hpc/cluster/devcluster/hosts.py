"""Where the throwaway cluster can be reached: loopback addresses, free ports, and node names in /etc/hosts."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable
from pathlib import Path

HOSTS = Path("/etc/hosts")
FIRST_PORT, LAST_PORT = 21000, 31000  # below the range from which the kernel gives out ports


def can_keep_to_loopback() -> bool:
    """Whether Slurm can listen on 127.0.0.1 only.

    Told not to listen on all addresses, Slurm listens on the host name's; but srun is called back on 127.0.0.1: it must be it.
    """
    try:
        return socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
    except OSError:
        return False


def free_ports(count: int, seed: int) -> int:
    """The first of `count` neighbouring free ports. Clusters with different seeds start looking in different places.

    Raises:
        OSError: there are none.
    """
    span = LAST_PORT - FIRST_PORT - count
    for offset in range(0, span, count):
        base = FIRST_PORT + (seed + offset) % span
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise OSError(f"no {count} neighbouring free ports between {FIRST_PORT} and {LAST_PORT}")


def add_names(names: list[str], mark: str) -> bool:
    """Let node N resolve to 127.0.1.N by lines that end in the mark; False if /etc/hosts is not ours to write.

    Each cluster adds its own lines, although another one may have added the same: each can then go without hurting the other.
    """
    lines = [f"127.0.1.{number} {name} # {mark}\n" for number, name in enumerate(names, start=1)]
    return _edit(lambda text: _without(text, mark).rstrip("\n") + "\n" + "".join(lines))


def remove_names(mark: str) -> bool:
    """Remove the lines that end in the mark."""
    return _edit(lambda text: _without(text, mark))


def resolves_to_loopback(name: str) -> bool:
    """Whether the name is known here and means this machine."""
    try:
        return socket.gethostbyname(name).startswith("127.")
    except OSError:
        return False


def _without(text: str, mark: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip().endswith(f"# {mark}"))


def _edit(change: Callable[[str], str]) -> bool:
    # In place and locked, not by rename: in containers the file is a bind mount, and two clusters may come up at once.
    try:
        with HOSTS.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read()
            after = change(before)
            if after != before:
                file.seek(0)
                file.write(after)
                file.truncate()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

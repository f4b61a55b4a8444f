"""Bringing official files into the data folder: from their public homes, or from any folder that holds copies of them.

Nothing is used before its checksum is right: contents are checked in memory (the files are small) and then written whole.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from eva_hpc.benchmarks.official.data_file import DataFile
from eva_hpc.benchmarks.official.data_folder import Found, aside, look, put
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.artifacts import write_atomically

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
LONGEST_WAIT_S = 15.0
TIMEOUT_S = 30.0
"""Without a byte, until an attempt is given up."""
LARGEST = 256 * 1024**2
"""Bytes that a file of unknown size may have."""

Progress = Callable[[DataFile, int, int | None], None]
"""Told of a file how many bytes are there, and of how many, where that is known."""


@dataclass(frozen=True)
class Fetched:
    """What lies at a file's place now, and how it came there: None if it was there already.

    `replaced` is where another content that lay there is kept; `problem` says why the file could not be had.
    """

    found: Found
    how: Literal["downloaded", "copied"] | None = None
    source: str | None = None
    replaced: Path | None = None
    problem: str | None = None


class _DownloadError(Exception):
    """A download that did not give the file; tried again if `transient`. `unreachable`: the server did not answer at all."""

    def __init__(self, problem: str, transient: bool = False, unreachable: bool = False) -> None:
        super().__init__(problem)
        self.transient = transient
        self.unreachable = unreachable


# ---------------------------------------------------------------------------- from their homes


def download(files: Sequence[DataFile], folder: Path, progress: Progress = lambda file, done, total: None) -> Iterator[Fetched]:
    """Fetch what is not there, or only as a stand-in; one result per file, in their order, as soon as it is known.

    A download with a wrong checksum is kept beside the place, as ``NAME.wrong``, and not used. Once a server cannot be reached
    the other files from there are not tried.

    Raises:
        ConfigError: nothing can be written in the folder.
    """
    silent: dict[str, str] = {}
    with _client() as client:
        for file in files:
            before = look(file, folder)
            if before.state == "official":
                yield Fetched(before)
                continue
            host = urlsplit(file.url).netloc
            try:
                if host in silent:
                    raise _DownloadError(silent[host])
                content = _insist(client, file, progress)
                if not file.is_official(content):
                    raise _DownloadError(_wrong(file, content, before.path))
            except _DownloadError as error:
                if error.unreachable:
                    silent[host] = str(error)
                yield Fetched(before, problem=str(error))
                continue
            yield _placed(file, content, folder, "downloaded", file.url)


@contextmanager
def _client() -> Iterator[httpx.Client]:
    import httpx

    try:  # it reads proxies from the environment
        client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, headers={"User-Agent": "eva-hpc"})
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(f"the proxy of the environment (HTTPS_PROXY, ALL_PROXY) cannot be used: {error}") from None
    with client:
        yield client


def _insist(client: httpx.Client, file: DataFile, progress: Progress) -> bytes:
    """Attempts until one gives a file of the right size; when they run out, what the last one gave, or its error."""
    from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_attempt, wait_random_exponential

    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=1, max=LONGEST_WAIT_S),
        retry=retry_if_exception(lambda error: isinstance(error, _DownloadError) and error.transient)
        | retry_if_result(lambda content: file.size is not None and len(content) < file.size),
        retry_error_callback=lambda last: last.outcome.result() if last.outcome else b"",
    )
    return attempts(_attempt, client, file, progress)


def _attempt(client: httpx.Client, file: DataFile, progress: Progress) -> bytes:
    import httpx

    host = urlsplit(file.url).netloc
    most = LARGEST if file.size is None else file.size
    content = bytearray()
    try:
        with client.stream("GET", file.url) as response:
            if response.status_code != 200:
                later = response.status_code in (408, 429) or response.status_code >= 500
                raise _DownloadError(f"{file.url}: HTTP {response.status_code} {response.reason_phrase}", transient=later)
            for piece in response.iter_bytes():
                content += piece
                progress(file, len(content), file.size)
                if len(content) > most:  # not the file, e.g. the page of a portal: no need for the rest of it
                    break
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _DownloadError(f"{host} cannot be reached: {_words(error)}", transient=True, unreachable=True) from error
    except httpx.HTTPError as error:
        raise _DownloadError(f"{file.url}: {_words(error)}", transient=True) from error
    return bytes(content)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())


def _wrong(file: DataFile, content: bytes, path: Path) -> str:
    """Keep a wrong content for whoever wants to see what it is; returns the message."""
    size = f"{len(content):,} bytes with {file.found(content)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(aside(path), content)
        kept = f"kept as {aside(path)}"
    except OSError as error:
        kept = f"not kept: {error.strerror}"
    return f"{file.url}: found {size}; must be {file.checksum}. Not used, {kept}"


# ---------------------------------------------------------------------------- from a folder


def take(files: Sequence[DataFile], source: Path, folder: Path) -> Iterator[Fetched]:
    """Copy what is not there from a folder of any layout, plain or ``.gz``; one result per file.

    Files are known by their content; read are those of a fitting size or, where the catalogue has no size, name. A stand-in
    is taken where the official file is neither there nor in `source`.

    Raises:
        ConfigError: `source` is not a folder, or nothing can be written in `folder`.
    """
    if not source.is_dir():
        raise ConfigError(f"{source}: {'not a folder' if source.exists() else 'there is no such folder'}")
    before = {file: look(file, folder) for file in files}
    wanted = [file for file in files if before[file].state != "official"]
    official: dict[DataFile, tuple[Path, bytes]] = {}
    stand_ins: dict[DataFile, tuple[Path, bytes]] = {}
    problems: dict[DataFile, str] = {}
    for path in _regular_files(source) if wanted else ():
        candidates = [file for file in wanted if file not in official and _may_be(file, path)]
        if not candidates:
            continue
        try:
            content = _content(path)
        except (OSError, EOFError, zlib.error) as error:
            problems |= {file: f"{path} cannot be read: {error}" for file in candidates if _same_name(file, path)}
            continue
        for file in candidates:
            if file.is_official(content):
                official[file] = path, content
            elif file.stand_in(content):
                stand_ins.setdefault(file, (path, content))
            elif _same_name(file, path):
                problems[file] = f"{path} has its name, but {file.found(content)}; must be {file.checksum}"
        if len(official) == len(wanted):
            break
    for file in files:
        found = official.get(file) or (None if before[file].usable else stand_ins.get(file))
        if found:
            yield _placed(file, found[1], folder, "copied", str(found[0]))
        elif before[file].usable:
            yield Fetched(before[file])
        else:
            yield Fetched(before[file], problem=problems.get(file, f"no file in {source} has {file.checksum}"))


def _regular_files(source: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(source):
        below.sort()
        yield from (path for name in sorted(names) if (path := Path(folder, name)).is_file())


def _may_be(file: DataFile, path: Path) -> bool:
    """Whether the size fits that of the file or of a stand-in; names count only where the size is not known."""
    sizes = [stand_in.size for stand_in in file.stand_ins] + ([] if file.size is None else [file.size])
    try:
        return _unpacked_size(path) in sizes or (file.size is None and _same_name(file, path))
    except OSError:
        return _same_name(file, path)


def _same_name(file: DataFile, path: Path) -> bool:
    return path.name in (name := Path(file.path).name, f"{name}.gz")


def _unpacked_size(path: Path) -> int:
    """In bytes; that of a gzip file is in its last four, modulo 2^32 (RFC 1952)."""
    size = path.stat().st_size
    if path.suffix != ".gz" or size < 18:
        return size
    with path.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        return int.from_bytes(packed.read(4), "little")


def _content(path: Path) -> bytes:
    """Unpacked, and no more of it than a file may have."""
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            return plain.read(LARGEST)
    with gzip.open(path, "rb") as packed:
        return packed.read(LARGEST)


def _placed(file: DataFile, content: bytes, folder: Path, how: Literal["downloaded", "copied"], source: str) -> Fetched:
    replaced = put(file, content, folder)
    return Fetched(look(file, folder), how, source, replaced)

"""A snapshot of this package: what a launcher ran when it submitted is what its jobs run, whatever is edited meanwhile.

    ROOT/code/DIGEST/eva_hpc/         the package, every file
    ROOT/code/DIGEST/snapshot.json    {"git_commit": "4651f6a…", "dirty": true, "eva_hpc": "0.1.0", "time": "2026-01-31T…"}
    ROOT/code/DIGEST/diff.patch       what the checkout had beyond the commit; not there if nothing

Sweeps share snapshots: the same code from the same commit gives the same digest.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import orjson

import eva_hpc
from eva_hpc.store.artifacts import write_atomically

RECORD = "snapshot.json"
PATCH = "diff.patch"


@dataclass(frozen=True)
class Snapshot:
    """Where a snapshot is, and which commit it was taken from; `dirty` if the checkout had more than the commit."""

    folder: Path
    digest: str
    git_commit: str | None
    dirty: bool


def take_snapshot(root: Path) -> Snapshot:
    """Copy the running package below `root`, unless the same is there already.

    Safe with several launchers at once. Files that have gone missing from an earlier snapshot, as on file systems that delete
    what is old, are put back.

    Raises:
        OSError: it cannot be written.
    """
    package = Path(eva_hpc.__file__).resolve().parent
    git_commit, patch = _origin(package)
    files = {f"{package.name}/{name}": content for name, content in _package_files(package).items()}
    if patch:
        files[PATCH] = patch
    # Equal code from another commit is another snapshot: the record would name the wrong commit.
    digest = _digest({**files, "commit": str(git_commit).encode()})
    record = {
        "git_commit": git_commit,
        "dirty": bool(patch),
        "eva_hpc": eva_hpc.__version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    files[RECORD] = orjson.dumps(record, option=orjson.OPT_INDENT_2)
    folder = root.absolute() / "code" / digest
    if not folder.is_dir():
        _write_new(folder, files)
    for name, content in files.items():
        place = folder / name
        if not place.is_file() or place.stat().st_size != len(content):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, content)
    os.utime(folder)  # in use: not for a clean-up by age
    return Snapshot(folder, digest, git_commit, bool(patch))


def setup_lines(snapshot: Snapshot) -> list[str]:
    """What makes a job's script import the snapshot, also where the package is installed from an editable checkout.

    They come after all else that sets the script up. They leave the folder it was submitted from, often the checkout: what
    lies in the working directory comes before PYTHONPATH for ``python -m``.
    """
    folder = shlex.quote(str(snapshot.folder))
    return [f'export PYTHONPATH={folder}"${{PYTHONPATH:+:$PYTHONPATH}}"', f"cd {folder}"]


def commit_of_snapshot(source: Path) -> str | None:
    """The commit that the snapshot in this folder was taken from, with ``-dirty`` as git says it; None if unknown.

    Raises:
        FileNotFoundError: the folder holds no snapshot.
    """
    record = orjson.loads((source / RECORD).read_bytes())
    commit: str | None = record["git_commit"]
    return f"{commit}-dirty" if commit and record["dirty"] else commit


def _package_files(package: Path) -> dict[str, bytes]:
    """Content by path, of all but what Python compiled and what is hidden."""
    files = {}
    for folder, folders, names in os.walk(package, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.endswith((".pyc", "~")):
                path = Path(folder, name)
                files[path.relative_to(package).as_posix()] = path.read_bytes()
    return files


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]


def _write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write beside, then rename: whoever sees the folder sees all of it."""
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    for parent in {(partial / name).parent for name in files}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (partial / name).write_bytes(content)
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not folder.is_dir():  # else another launcher was faster
            raise


def _origin(package: Path) -> tuple[str | None, bytes]:
    """The commit of the checkout that the package lies in, and the difference to it; None and nothing outside of one.

    The difference covers what git tracks, and new files of the package.
    """
    checkout = package.parent
    if (checkout / RECORD).is_file():  # the launcher runs from a snapshot itself
        record = orjson.loads((checkout / RECORD).read_bytes())
        patch = checkout / PATCH
        return record["git_commit"], patch.read_bytes() if patch.is_file() else b""
    if not (checkout / ".git").exists():
        return None, b""
    commit = _git(checkout, "describe", "--always", "--abbrev=40")
    if commit is None:
        return None, b""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    patch = _git(checkout, "diff", *plain, "HEAD") or b""
    new = _git(checkout, "ls-files", "-z", "--others", "--exclude-standard", "--", f"{package.name}/*.py") or b""
    return commit.decode().strip(), patch + b"".join(_as_new(checkout, os.fsdecode(name)) for name in new.split(b"\0") if name)


def _as_new(checkout: Path, name: str) -> bytes:
    """The patch that makes a file."""
    lines = (checkout / name).read_bytes().splitlines(keepends=True)
    body = difflib.diff_bytes(difflib.unified_diff, [], lines, b"/dev/null", b"b/" + os.fsencode(name))
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n".encode()
    return head + b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in body)


def _git(checkout: Path, *arguments: str) -> bytes | None:
    """What git prints; None if it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

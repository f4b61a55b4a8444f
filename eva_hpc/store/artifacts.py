"""The store: one folder per artifact, done if and only if its manifest is there and its content verifies.

STORE/generate/3f0c….fraction=1.0.responses=10/
    responses.jsonl     what the stage wrote
    work/               chunks, checkpoints, logs of progress; gone once committed
    manifest.json       written last, by atomic rename: names, sizes and SHA-256 of all files, and where they come from
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.store.keys import Identity, containing, digest
from eva_hpc.store.seeds import derive_seed

MANIFEST = "manifest.json"
WORK = "work"
CLAIM = "claim"
LOCATION = "location.json"
SPEED = "speed.jsonl"
REFERENCE = "reference.json"
_NOT_CONTENT = (LOCATION, SPEED, REFERENCE)
_CLAIM_ATTEMPTS = 5


class CorruptArtifact(Exception):
    """A committed artifact whose files are not what its manifest says."""


@dataclass(frozen=True)
class Artifact:
    """A committed artifact."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        """Which one it is, by its manifest."""
        return Identity.from_json(self.manifest["identity"])

    @property
    def content(self) -> str:
        """A hash of the names and contents of its files, but for where something outside lies and how it was made."""
        return digest({name: entry for name, entry in self.manifest["files"].items() if name not in _NOT_CONTENT})

    def touched(self) -> bool:
        """Whether a file of it was written to after the commit, as the clock of the file system says."""
        committed = os.stat(self.folder / MANIFEST).st_mtime_ns
        return any(os.stat(self.folder / name).st_mtime_ns > committed for name in self.manifest["files"])

    def verify(self) -> None:
        """Compare size and SHA-256 of every file with the manifest.

        Raises:
            CorruptArtifact: naming the first file that is missing or differs.
        """
        for name, entry in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise CorruptArtifact(f"{path} is missing")
            if path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
                raise CorruptArtifact(f"{path} is not the file that was committed")


class Store:
    """All artifacts below one folder, which may be shared by many sweeps."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identity: Identity) -> Path:
        """Where an artifact is or will be."""
        return self.root / identity.stage / identity.name

    def work(self, identity: Identity) -> Path:
        """The folder for what an unfinished stage keeps between attempts."""
        return self.folder(identity) / WORK

    def cache(self, name: str, key: str) -> Path:
        """A file shared by stages that would compute the same thing, e.g. reference log-probs. Written by atomic rename."""
        folder = self.root / "cache" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    def claim(self, identity: Identity, owner: str) -> str | None:
        """Take the right to make an artifact; returns None if it is now the owner's, else whose it is.

        A claim goes with the commit. Whether another owner is still alive, the caller must know; see :meth:`take_over`.
        """
        path = self.work(identity) / CLAIM
        mine = path.with_name(f"{CLAIM}.{derive_seed(owner)}")
        for _ in range(_CLAIM_ATTEMPTS):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                mine.write_text(owner)
                with suppress(FileExistsError):
                    os.link(mine, path)  # atomic, on network file systems too
                holder = path.read_text()
                return None if holder == owner else holder
            except FileNotFoundError:  # committed meanwhile, and with it the folder has gone; or given up: once more
                if (self.folder(identity) / MANIFEST).exists():
                    return None
            finally:
                mine.unlink(missing_ok=True)
        return None

    def take_over(self, identity: Identity, dead: str, owner: str) -> str | None:
        """Claim an artifact whose owner has died; of several that try, one gets it. Returns as :meth:`claim`."""
        path = self.work(identity) / CLAIM
        grave = path.with_name(f"{CLAIM}.dead.{derive_seed(owner)}")
        try:
            path.rename(grave)
            if grave.read_text() != dead:  # somebody else was faster, and this was the new claim
                os.link(grave, path)
            grave.unlink(missing_ok=True)
        except (FileNotFoundError, FileExistsError):
            grave.unlink(missing_ok=True)
        return self.claim(identity, owner)

    def release(self, identity: Identity, owner: str) -> None:
        """Give back the owner's claim, without an artifact, so that others need not wait for its end."""
        path = self.work(identity) / CLAIM
        with suppress(FileNotFoundError):
            if path.read_text() == owner:
                path.unlink()

    def find(self, identity: Identity) -> Artifact | None:
        """A committed artifact that is, or contains, the one asked for; the smallest such.

        Sizes are compared here; :meth:`Artifact.verify` compares contents. An artifact with a missing or cut file, or with a
        manifest that cannot be read, counts as not there.
        """
        exact = self.at(self.folder(identity))
        if exact is not None and exact.identity == identity:
            return exact
        names = self.listing(identity.stage).get(identity.family, {}) if identity.nested else ()
        found = (self.at(self.folder(larger)) for larger in containing(identity, names))
        return next((artifact for artifact in found if artifact is not None and artifact.identity.contains(identity)), None)

    def listing(self, stage: str) -> dict[str, dict[str, int]]:
        """What lies in the folder of a stage, committed or not: family -> folder name -> inode number."""
        families: dict[str, dict[str, int]] = {}
        try:
            with os.scandir(self.root / stage) as entries:
                for entry in entries:
                    families.setdefault(entry.name.partition(".")[0], {})[entry.name] = entry.inode()
        except FileNotFoundError:
            return {}
        return families

    def at(self, folder: Path) -> Artifact | None:
        """The committed artifact in a folder; sizes are compared as in :meth:`find`."""
        return _read(folder)

    def commit(self, identity: Identity, description: Mapping[str, Any]) -> Artifact:
        """Make what lies in the artifact's folder final: sync every file, write the manifest by atomic rename, drop `work`.

        Args:
            identity: which artifact.
            description: further entries of the manifest (spec, inputs, counts, versions, …).
        """
        folder = self.folder(identity)
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and _is_data(path.relative_to(folder)))
        files = {}
        for path in paths:
            path.chmod(folder.stat().st_mode & 0o666)  # some libraries write files that only their owner can read
            sync(path)
            files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for parent in {folder, *(path.parent for path in paths)}:
            sync(parent)
        manifest = {**description, "identity": identity.to_json(), "key": identity.key, "files": files}
        write_atomically(folder / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return Artifact(folder, manifest)

    def tidy(self, identity: Identity) -> None:
        """Remove what a commit that was cut short has left of an artifact's work."""
        if (self.folder(identity) / MANIFEST).exists():
            shutil.rmtree(self.work(identity), ignore_errors=True)

    def set_aside(self, artifact: Artifact) -> Path:
        """Move a corrupt artifact out of the way, keeping it, so that its stage can run again; returns where it is now."""
        attempt = 1
        while (target := artifact.folder.with_name(f"corrupt-{attempt}-{artifact.folder.name}")).exists():
            attempt += 1
        artifact.folder.rename(target)
        return target


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none of it, also when the machine stops: sync, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_data(relative: Path) -> bool:
    return relative.parts[0] not in (WORK, MANIFEST) and not relative.name.endswith(".partial")


def _read(folder: Path) -> Artifact | None:
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = orjson.loads(file.read())
        Identity.from_json(manifest["identity"])
        intact = all(os.stat(f"{folder}/{name}").st_size == entry["bytes"] for name, entry in manifest["files"].items())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):  # not a manifest of ours, or not any more
        return None
    return Artifact(folder, manifest) if intact else None


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()

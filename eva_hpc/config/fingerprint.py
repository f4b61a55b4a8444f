"""Fingerprints: hashes of the content of files and models, which stand for their paths in the keys of artifacts.

Limits, on purpose: a name on the hub is hashed as a name, so without a `revision` new weights under an old name go unseen;
files of 2 GiB and more are hashed by their size, their first and last MiB and 64 blocks of 1 MiB evenly spaced between these,
because hashing a large model takes minutes. A change that touches none of the blocks goes unseen; training changes all weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

WHOLE_BELOW = 2 * 1024**3
_PIECE = 1024**2
_BLOCKS = 64
_MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".py")


def fingerprint(path: str) -> str:
    """The hash of a file's or model folder's content, ``sha256:…``; ``hub:NAME`` for anything that does not exist here.

    A folder's hash covers names and content of its configuration, tokenizer, code and safetensors files, not of subfolders.
    The revision of a hub name is a field of the section that names it, and enters keys from there.
    """
    place = Path(path)
    if place.is_dir():
        digest = hashlib.sha256()
        for file in sorted(place.iterdir(), key=lambda file: file.name):
            if file.suffix in _MODEL_FILES and file.is_file():
                digest.update(f"{file.name}\0{_file_hash(file)}\n".encode())
        return f"sha256:{digest.hexdigest()}"
    return f"sha256:{_file_hash(place)}" if place.is_file() else f"hub:{path}"


def _file_hash(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        if size < WHOLE_BELOW:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        else:
            digest.update(f"{size}\0".encode())
            for block in range(_BLOCKS + 2):  # the first and the last one are the ends of the file
                stream.seek((size - _PIECE) * block // (_BLOCKS + 1))
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()

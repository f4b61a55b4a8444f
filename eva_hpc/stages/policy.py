"""How artifacts hold a policy: ``policy.json`` says how to load the weights, which lie in ``model/`` or elsewhere.

policy.json      {"revision": null, "dtype": "float32", "attention": "sdpa", "trust_remote_code": false}
location.json    {"path": "google/gemma-2-9b-it"}      only where there is no model/; not part of the artifact's content
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from eva_hpc.inference.engine import ModelSource
from eva_hpc.store.artifacts import LOCATION, write_atomically


def write_policy(folder: Path, location: str | None = None, **fields: Any) -> None:
    """Say how to load the weights of this artifact and, if it has none itself, where they are (absolute path or hub name)."""
    write_atomically(folder / "policy.json", orjson.dumps(fields))
    if location is not None:
        write_atomically(folder / LOCATION, orjson.dumps({"path": location}))


def read_policy(folder: Path) -> ModelSource:
    """The weights of an artifact, ready for an engine or the trainer."""
    fields = orjson.loads((folder / "policy.json").read_bytes())
    own = folder / "model"
    path = str(own) if own.is_dir() else orjson.loads((folder / LOCATION).read_bytes())["path"]
    return ModelSource(path=path, **fields)

"""How artifacts hold a policy: ``policy.json`` says where the weights are and how to load them.

    {"path": "model", "revision": null, "dtype": "float32", "attention": "sdpa", "trust_remote_code": false}

A relative path lies in the artifact itself; an absolute path or a hub name points outside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from eva_hpc.inference.engine import ModelSource
from eva_hpc.store.artifacts import write_atomically


def write_policy(folder: Path, **fields: Any) -> None:
    """Say where the weights of this artifact are."""
    write_atomically(folder / "policy.json", orjson.dumps(fields))


def read_policy(folder: Path) -> ModelSource:
    """The weights of an artifact, ready for an engine or the trainer."""
    fields = orjson.loads((folder / "policy.json").read_bytes())
    if (folder / fields["path"]).is_dir():
        fields["path"] = str(folder / fields["path"])
    return ModelSource(**fields)

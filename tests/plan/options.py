"""What a recipe can be told to do in its rounds, one option after the other, as changes for `plan_of`."""

from __future__ import annotations

from typing import Any

SERVER = {"kind": "openai", "model": "m"}
OFFICIAL = {"set": "mt_bench", "path": "/q/mt"}
"""As a recipe has it once it is loaded, which is when the path is filled in."""
MODEL = {"kind": "model", "path": "/models/policy"}

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no warm-up": {"warmup": None},
    "new prompts": {"rounds_on": "new", "prompts__limit": 100},
    "more epochs": {"rounds_on": "repeated"},
    "from scratch": {"incremental": False},
    "new prompts from scratch": {"rounds_on": "new", "incremental": False, "prompts__limit": 100},
    "more epochs from scratch": {"rounds_on": "repeated", "incremental": False},
    "fixed reference": {"reference": "start"},
    "no evolving": {"creator__evolver": "none"},
    "another model evolves": {"creator__evolver": MODEL},
    "a server evolves": {"creator__evolver": SERVER},
    "recheck": {"creator__recheck": 0.25},
    "the policy rewrites": {"rewriter": "policy"},
    "another model rewrites": {"rewriter": {"by": MODEL, "only_if_better": False}},
    "a server rewrites": {"rewriter": {"by": SERVER}},
    "alignment potential": {"creator__informativeness": "alignment_potential"},
    "topics": {"creator__sampling": "topic"},
    "few evolved": {"creator__count": 3, "creator__evolutions": 1},
    "decontaminate": {"decontaminate": ["/data/heldout.jsonl", OFFICIAL]},
    "steps": {"optimiser": {"loss": "simpo", "steps": 30}},
    "pairwise": {"reward": {"kind": "pairrm", "path": "/models/reward"}, "benchmarks__heldout__reward": "/models/reward"},
    "everything": {
        "incremental": False,
        "reference": "start",
        "rewriter": "policy",
        "creator__recheck": 0.5,
        "creator__sampling": "topic",
        "decontaminate": ["/data/heldout.jsonl"],
        "optimiser": {"loss": "sppo", "win_probability": "hard"},
    },
}
CONTENT = {"/models/policy": "p", "/data/prompts.jsonl": "d", "/models/reward": "r", "/data/heldout.jsonl": "h", "/q/mt": "m"}
"""Fingerprints of all that these name."""

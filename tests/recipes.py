"""The smallest recipe, for tests that need one."""

from __future__ import annotations

LAB = {
    "name": "lab",
    "policy": {"kind": "lab"},
    "prompts": {"kind": "lab"},
    "reward": {"kind": "lab"},
    "creator": {"evolver": {"kind": "lab"}},
    "benchmarks": {"lab": {"kind": "lab"}},
}

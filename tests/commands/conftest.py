"""What the tests of commands share with those of the rooms below."""

from __future__ import annotations

from tests.benchmarks.conftest import shared_data

__all__ = ["shared_data"]

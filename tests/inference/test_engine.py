"""The room's front door is light, and says what is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eva_hpc.inference.engine import EngineLimits, ModelSource
from eva_hpc.inference.opening import open_engine


def test_the_interface_imports_nothing_heavy() -> None:
    code = (
        "import sys, eva_hpc.inference.engine, eva_hpc.inference.reward_models, eva_hpc.inference.chat; "
        "print([m for m in ('torch', 'transformers', 'vllm', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_engine_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown engine 'tgi': choose transformers or vllm"):
        open_engine("tgi", ModelSource("nowhere"), EngineLimits())  # type: ignore[arg-type]

"""Environment defaults for every test, and tiny models built once per session."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("eva_hpc", deadline=None)
hypothesis.settings.load_profile("eva_hpc")

sys.path.insert(0, str(Path(__file__).parents[1]))
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(name, value)


def pytest_collection_finish() -> None:
    """What imports have made stays: the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Commands freeze what they have planned, for good; here the interpreter goes on, and some library looks for leaks."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real benchmark data beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the folder shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Qwen2 policy and its tokenizer."""
    from tests.tiny_models import tiny_policy

    return tiny_policy(tmp_path_factory.mktemp("models") / "qwen2", "qwen2")


@pytest.fixture(scope="session")
def tiny_gemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Gemma2 policy: soft-capping, and a sliding window of 8 tokens in every other layer."""
    from tests.tiny_models import tiny_policy

    return tiny_policy(tmp_path_factory.mktemp("models") / "gemma2", "gemma2")


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Qwen2 reward model of one logit."""
    from tests.tiny_models import tiny_reward_model

    return tiny_reward_model(tmp_path_factory.mktemp("models") / "reward", "qwen2")

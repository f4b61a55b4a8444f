"""Real questions, answers and judgments, where the folder with them lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real benchmark data; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the folder shared/data beside the checkout")
    return SHARED_DATA

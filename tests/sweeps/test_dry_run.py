"""Every sweep that comes with the project can be planned at full scale, on a machine that has none of what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from eva_hpc.sweep import app
from tests.sweeps.shipped import SWEEPS


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda file: file.stem)
def test_a_dry_run_at_full_scale_shows_every_run(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "nothing"))
    words = [str(sweep), "--site", "h100", "--dry-run", "--quick", "--set", f"site.root={tmp_path}"]

    result = CliRunner().invoke(app, words, catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{sweep.stem}-gemma-2-9b-it-dpo-quick at site h100: ")
    assert "judged_questions" in result.output
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"

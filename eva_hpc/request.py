"""What a user asks for, opened: sweep, recipe and site loaded and checked, and where the results are. Starts nothing."""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eva_hpc.benchmarks.official.needed import official_file
from eva_hpc.cluster import queue
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment
from eva_hpc.plan.plan import Plan, make_plan
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import Store


@dataclass(frozen=True)
class Request:
    """A sweep in the words of the command line; the same words mean the same sweep in every command."""

    file: Path
    site: str | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    quick: bool = False
    sharing: bool = True


@dataclass(frozen=True)
class Opened:
    """A sweep that can be planned, executed or looked at. `chosen_here` says that the user named no site."""

    experiment: Experiment
    site: Site
    chosen_here: bool

    @property
    def root(self) -> Path:
        """The folder of everything that sweeps of this site write."""
        return Path(self.site.root).absolute()

    @property
    def store(self) -> Store:
        """All artifacts."""
        return Store(self.root / "store")

    @property
    def results(self) -> Path:
        """The folder of this sweep's results."""
        return self.root / self.experiment.name

    @cached_property
    def plan(self) -> Plan:
        """All work of the sweep."""
        plan = make_plan(self.experiment)
        gc.freeze()  # it stays until the command ends: nobody need look for garbage in it
        return plan


def open_request(request: Request) -> Opened:
    """Load and check what was asked for.

    Raises:
        ConfigError: a mistake in it, one line for each.
    """
    named = request.site or os.environ.get("EVA_HPC_SITE")
    site = load_site(named or _this_machine(), request.settings, known_stages=set(STAGES))
    experiment = load_experiment(
        request.file,
        site=site,
        overrides=request.settings,
        quick=request.quick,
        recipe=request.recipe,
        official=official_file,
    )
    settings = tuple(one for one in request.settings if not one.startswith("site."))
    experiment = experiment.model_copy(update={"settings": settings, "sharing": request.sharing})
    return Opened(experiment, site, chosen_here=named is None)


def _this_machine() -> str:
    """The site where none was named: this machine, unless it has a Slurm that somebody must have meant to use.

    Raises:
        ConfigError: it has.
    """
    if shutil.which("scontrol") and queue.available():
        raise ConfigError(
            "--site: this machine has Slurm; say which site file describes it, e.g. --site h100 (sbatch/sites/h100.yaml), "
            "or --site laptop to run here"
        )
    return "laptop"

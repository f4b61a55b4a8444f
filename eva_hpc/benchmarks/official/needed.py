"""Official files of benchmarks in the recipes of a sweep: where they lie, and which are not there yet."""

from __future__ import annotations

from eva_hpc.benchmarks.official import data_folder
from eva_hpc.benchmarks.official.catalogue import CATALOGUE
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.fingerprint import fingerprint
from eva_hpc.config.paths import references
from eva_hpc.config.sweep import Experiment


def official_file(set_: str, role: str) -> tuple[str, str]:
    """The absolute path of an official file; and the fingerprint of what lies there, else that of the official content."""
    path = data_folder.place(set_, role)
    if path.is_file():
        return str(path), fingerprint(str(path))
    file = data_folder.the_file(set_, role)
    return str(path), f"sha256:{file.sha256}" if file.sha256 else f"official:{file.checksum}"


def missing(experiment: Experiment) -> list[str]:
    """One line for each official file that a sweep needs and that is not in the data folder, or is another."""
    official = {str(data_folder.place(file.set, file.role, file.model)): file for file in CATALOGUE}
    named = {reference.text for _, recipe in experiment.points for reference in references(recipe) if reference.kind == "file"}
    problems: list[str] = []
    for path in sorted(named & official.keys()):
        file = official[path]
        try:
            data_folder.official(file.set, file.role, file.model)
        except ConfigError as error:
            problems += error.problems
    return problems

"""What the official judge is told, read from the official files and never executed.

v0.1: config/judge_config.yaml. v2.0: config/arena-hard-v2.0.yaml has the form of the question; the constants of
utils/judge_utils.py are the instructions and the baseline of each category.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_hpc.benchmarks.arena_hard.judgments import BASELINES, V01_CATEGORY
from eva_hpc.benchmarks.arena_hard.verdict import PATTERNS, Version
from eva_hpc.benchmarks.files import read_text
from eva_hpc.config.errors import ConfigError, did_you_mean

_MAX_TOKENS: dict[Version, int] = {"v0.1": 4096, "v2.0": 16000}


@dataclass(frozen=True)
class JudgePrompts:
    """The official way to ask: `system` and `baselines` by category, `templates` are the user's messages, one after another.

    `attempts` is how often a judge without a verdict is asked in all.
    """

    version: Version
    system: Mapping[str, str]
    baselines: Mapping[str, str]
    templates: tuple[str, ...]
    patterns: tuple[str, ...]
    temperature: float
    max_tokens: int
    attempts: int

    def system_prompt(self, category: str) -> str:
        """The instructions for a category; v0.1 has the same for all.

        Raises:
            ConfigError: v2.0 has none for it.
        """
        if self.version == "v0.1":
            return self.system[V01_CATEGORY]
        if category not in self.system:
            raise ConfigError(
                f"the judge has no instructions for category {category}; must be one of {', '.join(self.system)}"
                + did_you_mean(category, self.system)
            )
        return self.system[category]


def read_v01(path: Path) -> JudgePrompts:
    """The prompts of v0.1, from its judge_config.yaml.

    Raises:
        ConfigError: it is not such a file.
    """
    config = _yaml(path)
    templates = config.get("prompt_template")
    if not isinstance(templates, list):
        raise ConfigError(f"{path}: prompt_template: found {type(templates).__name__}; must be a list of texts")
    return JudgePrompts(
        version="v0.1",
        system={V01_CATEGORY: _text(config, "system_prompt", path)},
        baselines={V01_CATEGORY: str(config.get("baseline_model") or BASELINES[V01_CATEGORY])},
        templates=tuple(_template(template, ("question_1", "answer_1", "answer_2"), path) for template in templates),
        patterns=(str(config["regex_pattern"]),) if config.get("regex_pattern") else PATTERNS["v0.1"],
        temperature=float(config.get("temperature", 0.0)),
        max_tokens=int(config.get("max_tokens", _MAX_TOKENS["v0.1"])),
        attempts=int(config.get("number_of_judgment_attempts", 2)),
    )


def read_v2(config_path: Path, settings_path: Path) -> JudgePrompts:
    """The prompts of v2.0, from its arena-hard-v2.0.yaml and judge_utils.py.

    Raises:
        ConfigError: they are not such files.
    """
    config = _yaml(config_path)
    settings = _constants(settings_path).get("JUDGE_SETTINGS")
    if not isinstance(settings, dict) or not settings:
        raise ConfigError(f"{settings_path}: has no constant JUDGE_SETTINGS; must be the official judge_utils.py")
    for category, setting in settings.items():
        if not isinstance(setting, dict) or not {"system_prompt", "baseline"} <= set(setting):
            raise ConfigError(f"{settings_path}: JUDGE_SETTINGS: {category}: must have system_prompt and baseline")
    template = _template(_text(config, "prompt_template", config_path), ("QUESTION", "ANSWER_A", "ANSWER_B"), config_path)
    return JudgePrompts(
        version="v2.0",
        system={category: setting["system_prompt"] for category, setting in settings.items()},
        baselines={category: setting["baseline"] for category, setting in settings.items()},
        templates=(template,),
        patterns=tuple(config.get("regex_patterns") or PATTERNS["v2.0"]),
        temperature=float(config.get("temperature", 0.0)),
        max_tokens=int(config.get("max_tokens", _MAX_TOKENS["v2.0"])),
        attempts=1,
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: must be the official judge configuration")
    return config


def _text(config: Mapping[str, Any], key: str, path: Path) -> str:
    value = config.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{path}: {key}: found {type(value).__name__}; must be a text")
    return value


def _template(template: object, fields: tuple[str, ...], path: Path) -> str:
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(str(template)) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{path}: prompt_template: {error}") from None
    if found != set(fields):
        raise ConfigError(
            f"{path}: prompt_template: found the places {', '.join(sorted(found)) or 'none'}; must have {', '.join(fields)}"
        )
    return str(template)


class _KnownNames(ast.NodeTransformer):
    """Puts in the values of the constants before, so that what is left is literals."""

    def __init__(self, known: Mapping[str, ast.expr]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The constant's value, or the name itself."""
        return self.known.get(node.id, node)


def _constants(path: Path) -> dict[str, Any]:
    """The constants at the top of a Python file: texts, numbers, lists and dicts of such, and earlier constants."""
    try:
        tree = ast.parse(read_text(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: is not Python: {error.msg}") from None
    known: dict[str, ast.expr] = {}
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, _KnownNames(known).visit(node.value)
            try:
                values[name] = ast.literal_eval(value)
                known[name] = value
            except ValueError:
                continue  # computed: not a constant
    return values

"""YAML files whose every key and value remembers where it was written.

Plain YAML with safe tags only, and five differences from ``yaml.safe_load``, each against a silent surprise: a key given twice
is an error, keys are text, the file is one mapping, ``1e-4`` is a number (YAML 1.2) and a file has at most `MAX_VALUES` values
(aliases that repeat each other could otherwise fill the memory).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eva_hpc.config.errors import ConfigError, did_you_mean

KeyPath = tuple[str | int, ...]
MAX_VALUES = 100_000


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """The safe loader, which also reads 1e-4 and 1.5e3 as numbers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a line of a file, or a command-line argument (then the lines and the folder are None)."""

    source: str
    folder: Path | None = None
    key_line: int | None = None
    line: int | None = None

    def label(self, *, of_key: bool = False) -> str:
        """``file:line`` of the value, or of its key; the argument itself for the command line."""
        line = self.key_line if of_key else self.line
        return self.source if line is None else f"{self.source}:{line}"


@dataclass
class Document:
    """A mapping as read, and the origin of each of its keys and list items."""

    data: dict[str, Any]
    origins: dict[KeyPath, Origin]

    def origin(self, path: KeyPath) -> Origin:
        """The origin of a value, or of the nearest section around it that was written."""
        while path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def at(self, path: KeyPath, problem: str, *, of_key: bool = False) -> str:
        """One line of an error: position, dotted key, problem."""
        label = self.origin(path).label(of_key=of_key)
        return f"{label}: {dotted(path)}: {problem}" if path else f"{label}: {problem}"

    def copy(self) -> Document:
        """A copy that can be changed without changing this one."""
        return Document(copy.deepcopy(self.data), dict(self.origins))


def dotted(path: KeyPath) -> str:
    """``("axes", "seed", 1)`` as ``axes.seed[1]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def shown(path: Path) -> str:
    """A path as a user would type it: relative if it is below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def read_yaml(path: Path) -> Document:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: no such file, not UTF-8, a syntax error, a key given twice, a key that is not text, an empty file, a file
            that is not a mapping; with the line.
    """
    source = shown(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{source}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{source}: no such file{did_you_mean(path.name, siblings)}") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None
    node = _compose(text, source)
    if node is None:
        raise ConfigError(f"{source}: the file is empty; it must be a mapping of keys to values")
    reader = _Reader(source, path.parent)
    data = reader.read(node)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}:{node.start_mark.line + 1}: found {found(data)}; the file must be a mapping of keys to values"
        )
    if reader.problems:
        raise ConfigError(*reader.problems)
    return Document(data, reader.origins)


def read_value(text: str, source: str) -> Any:
    """The value of a piece of YAML such as ``[1, 2]`` given on the command line; `source` names it in errors.

    Raises:
        ConfigError: `text` is not YAML, or is empty.
    """
    node = _compose(text, source, lines=False)
    if node is None:
        raise ConfigError(f"{source}: there is no value after the '='; write null to mean none")
    reader = _Reader(source, None)
    value = reader.read(node)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return value


def found(value: Any) -> str:
    """A value as it should appear after the word "found"."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        text = repr(value if len(value) <= 60 else value[:57] + "...")
        try:
            node = _compose(value, "")
            number = node is not None and node.tag.rsplit(":", 1)[-1] in ("int", "float")
        except ConfigError:
            number = False
        return f"{text} (text, because of its quotes)" if number else text
    if value is None:
        return "nothing (null)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _compose(text: str, source: str, *, lines: bool = True) -> yaml.Node | None:
    """The node tree of one YAML document, or None for an empty one."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        position = f":{text[: error.position].count(chr(10)) + 1}" if lines else ""
        raise ConfigError(f"{source}{position}: not valid YAML: a character that text may not contain") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f":{mark.line + 1}" if lines and mark else ""
        problem = error.problem or error.context
        if problem and "'\\t'" in problem:
            problem = "a tab; YAML is indented with spaces"
        raise ConfigError(f"{source}{position}: not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from None


class _Reader:
    """Turns nodes into plain values and notes origins and problems on the way."""

    def __init__(self, source: str, folder: Path | None) -> None:
        self.source, self.folder = source, folder
        self.origins: dict[KeyPath, Origin] = {}
        self.problems: list[str] = []
        self.open: list[yaml.Node] = []
        self.count = 0

    def _problem(self, node: yaml.Node, text: str) -> None:
        position = f":{node.start_mark.line + 1}" if self.folder is not None else ""
        self.problems.append(f"{self.source}{position}: {text}")

    def read(self, node: yaml.Node) -> Any:
        """The value of a whole document."""
        try:
            return self._value(node, (), None)
        except RecursionError:
            raise ConfigError(f"{self.source}: nested too deeply") from None

    def _value(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise ConfigError(f"{self.source}: more than {MAX_VALUES} values; aliases (*name) may repeat each other")
        if any(node is outer for outer in self.open):
            raise ConfigError(
                f"{self.source}:{node.start_mark.line + 1}: {dotted(path)}: an alias to a section that it is part of"
            )
        if self.folder is not None:
            line = node.start_mark.line + 1
            # An alias's node starts at its anchor: the key is where the user wrote this value.
            key_line = key.start_mark.line + 1 if key is not None else line
            self.origins[path] = Origin(self.source, self.folder, key_line, max(line, key_line))
        self.open.append(node)
        result = self._plain(node, path)
        self.open.pop()
        return result

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag not in _TAGS:
            self._problem(node, f"{dotted(path)}: the tag {node.tag} is not allowed; write a plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return {name: self._value(value, (*path, name), key) for name, key, value in self._items(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index), None) for index, item in enumerate(node.value)]
        try:
            return _CONSTRUCTOR.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._problem(
                node, f"{dotted(path)}: found {node.value!r}; it is not a valid value, put quotes around it if it is text"
            )
            return None

    def _items(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Name, key node and value node of each entry; entries merged by ``<<: *anchor`` first, so that the own ones win."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for other in reversed(sources):
                    if not isinstance(other, yaml.MappingNode) or any(other is outer for outer in self.open):
                        self._problem(key, f"{dotted((*path, '<<'))}: must be an alias of a section")
                        continue
                    merged |= {name: (key, inner) for name, _, inner in self._items(other, path)}
            elif key.tag != "tag:yaml.org,2002:str":
                text = key.value if isinstance(key, yaml.ScalarNode) else "a list or section"
                self._problem(key, f"{dotted((*path, str(text)))}: keys must be text; put quotes around it")
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                where = f", first on line {first}" if self.folder is not None else ""
                self._problem(key, f"{dotted((*path, key.value))}: given twice{where}")
            else:
                own[key.value] = (key, value)
        for name, (key, value) in {**merged, **own}.items():
            yield name, key, value


_CONSTRUCTOR = _Loader("")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}

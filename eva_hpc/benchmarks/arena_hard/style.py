"""The style of an answer: its length in tokens and how many markdown headers, list items and bold pieces it has.

Official answer files carry these numbers as ``conv_metadata`` (v0.1) or ``metadata`` (v2.0)::

    {"token_len": 179, "header_count": {"h1": 0, …}, "list_count": {"ordered": 2, "unordered": 0}, "bold_count": {"**": 1, …}}

Where an answer has none they are counted here by the rule of the official add_markdown_info.py.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.config.errors import ConfigError

if TYPE_CHECKING:
    import tiktoken

ENCODINGS: dict[Version, str] = {"v0.1": "cl100k_base", "v2.0": "o200k_base"}
"""The tiktoken encodings of gpt-3.5-turbo and gpt-4o, which the official tools count with."""

_FENCED = re.compile("```([^`]*)```")
_HEADERS = {f"h{level}": re.compile(rf"^#{{{level}}}\s", re.MULTILINE) for level in range(1, 7)}
_LISTS = {"ordered": re.compile(r"^\s*\d+\.\s", re.MULTILINE), "unordered": re.compile(r"^\s*[-*+]\s", re.MULTILINE)}
_BOLD = {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")}
_COUNTS = {"header_count": _HEADERS, "list_count": _LISTS, "bold_count": _BOLD}
_HOME_OF_ENCODINGS = "https://openaipublic.blob.core.windows.net/encodings/"


class Style(NamedTuple):
    """What style control looks at, each a count."""

    tokens: int
    headers: int
    lists: int
    bolds: int


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """Headers, list items and bold pieces by kind, as in the metadata of official answers.

    What stands between code fences is left out first: as in the official tool, every occurrence of it in the text.
    """
    for block in _FENCED.findall(text):
        text = text.replace(block, "")
    return {
        name: {kind: len(pattern.findall(text)) for kind, pattern in patterns.items()} for name, patterns in _COUNTS.items()
    }


def token_count(text: str, version: Version) -> int:
    """Tokens of a text, in the encoding of the version's official tool.

    Raises:
        ConfigError: the file of the encoding is not in tiktoken's cache; nothing is downloaded.
    """
    return len(_encoding(ENCODINGS[version]).encode(text, disallowed_special=()))


def estimated_tokens(text: str) -> int:
    """Tokens of a text by its length, four characters to a token."""
    return round(len(text) / 4)


def has_encoding(version: Version) -> bool:
    """Whether the file of the version's encoding is in tiktoken's cache."""
    return cached_file(ENCODINGS[version]).is_file()


def style_from(metadata: Mapping[str, Any], place: str) -> Style:
    """The style that an answer's metadata say; a count may be a number or a number for each kind.

    Raises:
        ConfigError: a count is missing or is neither.
    """
    counts = []
    for name in ("token_len", *_COUNTS):
        value = metadata.get(name)
        count = sum(value.values()) if isinstance(value, Mapping) else value
        if not isinstance(count, int):
            raise ConfigError(f"{place}: {name}: found {value}; must be a count, or an object with a count for each kind")
        counts.append(count)
    return Style(*counts)


def style_of(text: str, version: Version, tokens: int | None = None) -> Style:
    """The style counted from an answer's text; `tokens` where that count is known."""
    counts = (sum(kinds.values()) for kinds in markdown_counts(text).values())
    return Style(token_count(text, version) if tokens is None else tokens, *counts)


@cache
def _encoding(name: str) -> tiktoken.Encoding:
    file = cached_file(name)
    if not file.is_file():
        raise ConfigError(
            f"style control counts tokens with tiktoken's {name}, whose file is not at {file}: on a machine with network run\n"
            f"  TIKTOKEN_CACHE_DIR=FOLDER python -c 'import tiktoken; tiktoken.get_encoding(\"{name}\")'\n"
            "and set TIKTOKEN_CACHE_DIR to that folder here; or give answer files that have token_len in their metadata"
        )
    import tiktoken

    return tiktoken.get_encoding(name)


def cached_file(name: str) -> Path:
    """Where tiktoken keeps a file that it has downloaded: named by the hash of its address."""
    default = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or default
    return Path(folder) / sha1(f"{_HOME_OF_ENCODINGS}{name}.tiktoken".encode()).hexdigest()

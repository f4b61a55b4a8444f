"""Reading the files of the official tools: JSON lists or JSON lines, CSV, plain or gzip, told apart by their content."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_hpc.config.errors import ConfigError, did_you_mean

Row = dict[str, Any]

_GZIP = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if it is gzip.

    Raises:
        ConfigError: it is not there, is damaged, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        near = did_you_mean(path.name, [file.name for file in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise ConfigError(f"{path}: there is no such file{near}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: the gzip file is damaged: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found byte {error.start} that is not UTF-8; must be UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def read_rows(path: Path, needs: Sequence[str] = ()) -> list[Row]:
    """The rows of a JSON list of objects, or of JSON lines.

    Args:
        path: plain or gzip.
        needs: keys that every row must have.

    Raises:
        ConfigError: the file cannot be read, a line is not a JSON object, a row lacks a key, or there is no row; names the line
            (JSON lines) or the row (JSON list).
    """
    text = read_text(path)
    rows = _json_list(path, text) if text.lstrip().startswith("[") else _json_lines(path, text)
    if not rows:
        raise ConfigError(f"{path}: the file has no rows")
    for place, row in rows:
        if not isinstance(row, dict):
            raise ConfigError(f"{path}:{place}: found {type(row).__name__}; must be a JSON object")
        lacking = [key for key in needs if key not in row]
        if lacking:
            raise ConfigError(f"{path}:{place}: has no {', '.join(lacking)}; must have {', '.join(needs)}")
    return [row for _, row in rows]


def _json_list(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        return [(f"row {number}", row) for number, row in enumerate(json.loads(text), start=1)]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from None


def _json_lines(path: Path, text: str) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON strings may hold U+2028 as it is
        if line.strip():
            try:
                rows.append((str(number), json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path}:{number}: is not JSON: {error}") from None
    return rows


def read_csv(path: Path, needs: Sequence[str] = ()) -> list[Mapping[str, str]]:
    """The rows of a CSV file with a line of headings.

    Raises:
        ConfigError: the file cannot be read, lacks a column, has a row with more or fewer cells than headings, or has no rows.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        headings = reader.fieldnames or []
        lacking = [name for name in needs if name not in headings]
        if lacking:
            raise ConfigError(f"{path}:1: has no column {', '.join(lacking)}; found {', '.join(headings) or 'nothing'}")
        rows: list[Mapping[str, str]] = []
        for row in reader:
            if None in row or None in row.values():  # how DictReader says that there are more, or fewer, cells than headings
                raise ConfigError(f"{path}:{reader.line_num}: must have {len(headings)} cells, as the line of headings")
            rows.append(row)
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: is not CSV: {error}") from None
    if not rows:
        raise ConfigError(f"{path}: the file has no rows")
    return rows

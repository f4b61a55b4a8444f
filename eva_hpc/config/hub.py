"""What a sweep needs from the Hugging Face hub: which of it the local cache lacks, and fetching it where there is a network.

Of a model: configuration, tokenizer and safetensors weights, no other weights, and code only where the recipe trusts it.
Of a data set: what `datasets` needs for the split, already converted, so that a job without network finds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import orjson

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.paths import references, section_of
from eva_hpc.config.sweep import Experiment
from eva_hpc.config.yaml_file import dotted

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
_SMALL = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Progress = Callable[[int], None]
"""Told how many bytes of all are there."""


class HubUnreachable(Exception):
    """The hub does not answer, or the files could not be fetched or kept; the message says what happened."""


@dataclass(frozen=True)
class Need:
    """One model or data set of the hub; `section` is where the recipe names it, e.g. ``policy``."""

    section: str
    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    code: bool = False
    split: str = ""
    column: str = ""

    @property
    def place(self) -> str:
        """The name with its revision, for messages."""
        return f"{self.name} at {self.revision}" if self.revision else self.name


@dataclass(frozen=True)
class Listing:
    """What the hub has for a need: the commit that its revision means now, and the size in bytes of each file needed."""

    commit: str
    files: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def needs(experiment: Experiment) -> list[Need]:
    """All that the recipes of an experiment name on the hub, each once."""
    found: dict[tuple[Any, ...], Need] = {}
    for _, recipe in experiment.points:
        for reference in references(recipe):
            if reference.kind not in ("model", "dataset") or Path(reference.text).is_absolute():
                continue
            section = section_of(recipe, reference)
            need = Need(
                section=dotted(reference.key[:-1]),
                kind=reference.kind,
                name=reference.text,
                revision=section.revision,
                code=getattr(section, "trust_remote_code", False),
                split=getattr(section, "split", ""),
                column=getattr(section, "column", ""),
            )
            found.setdefault((need.kind, need.name, need.revision, need.code, need.split), need)
    return list(found.values())


# ---------------------------------------------------------------------------- without network


def missing(experiment: Experiment) -> list[str]:
    """A line for each model and data set that the local cache lacks, in whole or in part. Looks at files only."""
    problems = ((need, _lacking_model(need) if need.kind == "model" else _lacking_dataset(need)) for need in needs(experiment))
    return [f"{need.section}: {need.kind} {need.place}: {problem}" for need, problem in problems if problem]


def is_of_revision(converted: Path, name: str, revision: str | None) -> bool:
    """Whether a converted data set was made from this revision; in doubt it was.

    Without network `datasets` takes what was touched last, whatever revision it is asked for.

    Args:
        converted: the folder that `datasets` wrote, which it names by the commit.
        name: of the data set on the hub.
        revision: as in the recipe.
    """
    from huggingface_hub import constants

    commit = revision if revision and _COMMIT.fullmatch(revision) else None
    reference = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "refs", revision or "main")
    if commit is None and reference.is_file():
        commit = reference.read_text().strip()
    return commit is None or converted.name == commit or not _COMMIT.fullmatch(converted.name)


def _cached(need: Need, file: str) -> Path | None:
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(need.name, file, revision=need.revision, repo_type=need.kind)
    except errors.HFValidationError:  # the hub allows fewer names than the recipe
        return None
    return Path(path) if isinstance(path, str) else None


def _lacking_model(need: Need) -> str | None:
    config = _cached(need, "config.json")
    if config is None:
        return "not in the local cache"
    index = _cached(need, _INDEX)
    weights = _shards(index) if index else {"model.safetensors"}
    lacking = [file for file in weights if _cached(need, file) is None]
    if lacking and (index or not any(config.parent.glob("*.safetensors"))):
        return f"{len(lacking)} of {len(weights)} files of weights are not in the local cache"
    if not any(_cached(need, file) for file in _TOKENIZERS):
        return "its tokenizer is not in the local cache"
    return "its code is not in the local cache" if need.code and not any(config.parent.glob("*.py")) else None


def _lacking_dataset(need: Need) -> str | None:
    records = list(_converted(need.name))
    if not records:
        return "not in the local cache"
    splits = {
        split
        for record in records
        if is_of_revision(record.parent, need.name, need.revision)
        for split in orjson.loads(record.read_bytes())["splits"]
    }
    if not splits:
        return "the local cache has another revision of it"
    parts = {part.partition("[")[0] for part in need.split.split("+")}  # train[:100]+test
    return (
        None if parts <= splits | {"all"} else f"has no split {need.split!r}; the local cache has {', '.join(sorted(splits))}"
    )


def _converted(name: str) -> list[Path]:
    """The record that `datasets` wrote of each version of a data set that it has converted."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, own = name.rpartition("/")
    folder = "___".join(filter(None, [owner, camelcase_to_snakecase(own)]))
    return list(Path(config.HF_DATASETS_CACHE).glob(f"{folder}/*/*/*/dataset_info.json"))


# ---------------------------------------------------------------------------- with network


def listing(need: Need) -> Listing:
    """Ask the hub what there is to fetch.

    Raises:
        ConfigError: no such model, data set or revision, no access to it, or nothing in it that can be used.
        HubUnreachable: see there.
    """
    from huggingface_hub import HfApi

    with _told_plainly(need):
        info = HfApi().repo_info(need.name, revision=need.revision, repo_type=need.kind, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or ()}
        wanted = _files_of_model(need, set(sizes)) if need.kind == "model" else set(sizes)
        return Listing(str(info.sha), {file: sizes[file] for file in sorted(wanted, key=lambda file: sizes.get(file, 0))})


def fetch(need: Need, listed: Listing, progress: Progress = lambda done: None) -> None:
    """Bring into the cache what is not there yet; goes on where it was interrupted.

    Raises:
        ConfigError: as `listing`, or a data set without the split or the column.
        HubUnreachable: see there.
    """
    with _told_plainly(need):
        if need.kind == "dataset":
            _fetch_dataset(need, listed)
            progress(listed.size)
            return
        before = 0
        for file, size in listed.files.items():
            _download(need, file, _after(before, size, progress))
            before += size
            progress(before)


def _after(before: int, size: int, progress: Progress) -> Progress:
    """Progress of one file of `size` bytes, as progress of all."""
    return lambda done: progress(before + min(done, size))


def _files_of_model(need: Need, files: set[str]) -> set[str]:
    """The files that loading takes; weights are those of the index, where there is one: other formats may lie beside them."""
    if _INDEX in files:
        weights = _shards(Path(_download(need, _INDEX)))
    else:
        weights = {"model.safetensors"} & files or {file for file in files if "/" not in file and file.endswith(".safetensors")}
    if not weights or not weights <= files:
        raise ConfigError(f"{need.section}: found {need.place}, which has no *.safetensors; pickles are not loaded")
    small = {
        file
        for file in files
        if (file.endswith(_SMALL) and PurePosixPath(file).parent.name in ("", "additional_chat_templates"))
        or (need.code and file.endswith(".py"))
    }
    return weights | small


def _shards(index: Path) -> set[str]:
    return set(orjson.loads(index.read_bytes())["weight_map"].values())


def _download(need: Need, file: str, progress: Progress = lambda done: None) -> str:
    from huggingface_hub import hf_hub_download
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        """Passes on what the hub's client would show."""

        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            super().__init__(disable=True)
            self.done = initial

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress(self.done)

    # By the revision as written, not the commit: the cache then knows what it means.
    return str(hf_hub_download(need.name, file, revision=need.revision, repo_type=need.kind, tqdm_class=Bar))


def _fetch_dataset(need: Need, listed: Listing) -> None:
    from datasets import disable_progress_bars, load_dataset

    for smallest in list(listed.files)[:1]:
        _download(need, smallest)  # with it the cache learns what the revision means
    disable_progress_bars()
    try:
        table = load_dataset(need.name, split=need.split, revision=listed.commit)
    except ValueError as error:
        raise ConfigError(f"{need.section}: found {need.place}: {' '.join(str(error).split())}") from None
    if need.column not in table.column_names:
        text = f"found {need.column!r}; the columns of {need.place} are {', '.join(table.column_names)}"
        raise ConfigError(f"{need.section}.column: {text}")
    for file in table.cache_files:  # without network `datasets` takes the version that was touched last
        os.utime(Path(file["filename"]).parent)


@contextmanager
def _told_plainly(need: Need) -> Iterator[None]:
    """Turn what the hub's client raises into messages for the user."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set in the environment: unset it to fetch anything")
    try:
        yield
    except (ConfigError, KeyboardInterrupt):
        raise
    except errors.HFValidationError as error:
        raise ConfigError(f"{need.section}: found {need.name!r}; {' '.join(str(error).split())}") from None
    except errors.GatedRepoError:
        page = f"{constants.ENDPOINT}/{'datasets/' if need.kind == 'dataset' else ''}{need.name}"
        text = f"access is granted to single users: ask for it at {page}, then set HF_TOKEN or call hf auth login"
        raise ConfigError(f"{need.section}: found {need.place}; {text}") from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{need.section}.revision: found {need.revision!r}, which {need.name} does not have") from None
    except errors.RepositoryNotFoundError:
        text = f"the hub has no such {need.kind}, or hides it: a private one needs HF_TOKEN or hf auth login"
        raise ConfigError(f"{need.section}: found {need.name!r}; {text}") from None
    except Exception as error:
        in_one_line = " ".join(str(error).split())
        raise HubUnreachable(f"{need.section}: {need.place}: {type(error).__name__}: {in_one_line}") from error

"""Base prompts, from the lab, a file or the hub, with stable ids; what cannot be used is set aside and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from eva_hpc.config.hub import is_of_revision
from eva_hpc.config.recipe import FilePrompts, HubPrompts, LabPrompts, Prompts
from eva_hpc.config.section import later
from eva_hpc.method.contamination import Index
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.held_out import held_out_questions
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.unchanged import check_unchanged
from eva_hpc.store.records import Prompt, write_jsonl
from eva_hpc.store.seeds import content_id, derive_seed


class Spec(StageSpec):
    """Where prompts come from; `fingerprint` is the hash of the file's content.

    `split` counts the samples of the source that rounds take one after the other, all as large. `contamination` is the share of
    an evaluation question that no prompt may contain; None where there are none.
    """

    stage: ClassVar[str] = "prompts"
    source: Prompts
    fingerprint: str = ""
    split: int = later(0)
    contamination: float | None = later(None)


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl``. Inputs: ``policy`` (for its tokenizer) unless the source is the lab; ``questions_…``."""
    source = spec.source
    if isinstance(source, LabPrompts):
        from eva_hpc.lab.tasks import make_prompts

        end = (spec.split + 1) * source.count
        texts: list[Any] = list(make_prompts(end, source.levels, source.seed))[end - source.count :]
        return select_prompts(texts, out, origin="lab", length=len, max_tokens=None, limit=None)
    return select_prompts(
        read_column(source, spec.fingerprint, context.work),
        out,
        origin=Path(source.path).name if isinstance(source, FilePrompts) else source.name,
        length=token_counter(inputs["policy"]),
        max_tokens=token_limit(inputs["policy"], source.max_tokens),
        limit=source.limit,
        split=spec.split,
        contaminated=_contaminated(spec, inputs),
    )


def _contaminated(spec: Spec, inputs: Inputs) -> Callable[[str], str | None]:
    """What tells which evaluation question a prompt contains, if any."""
    if spec.contamination is None:
        return lambda text: None
    index, share = Index(held_out_questions(inputs)), spec.contamination
    return lambda text: index.match(text, share)


def read_column(source: FilePrompts | HubPrompts, fingerprint: str, cache: Path) -> list[Any]:
    """One column of a JSONL or Parquet file or of a hub dataset, through `datasets`.

    Raises:
        StageFailed: the data or the column is not there, or not what was planned with: another content or revision.
    """
    from datasets import config, disable_progress_bars, load_dataset

    disable_progress_bars()
    if isinstance(source, FilePrompts):
        kind = "parquet" if source.path.endswith(".parquet") else "json"
        check_unchanged(source.path, fingerprint)
        table = load_dataset(kind, data_files=source.path, split="train", cache_dir=str(cache / "datasets"))
        check_unchanged(source.path, fingerprint)  # nor while it was read
    else:
        try:
            table = load_dataset(source.name, split=source.split, revision=source.revision)
        except (ConnectionError, FileNotFoundError) as error:
            raise StageFailed(
                f"data set {source.name}: {error}; where there is a network, eva-hpc prefetch fetches it"
            ) from None
        folders = {Path(file["filename"]).parent for file in table.cache_files}
        if config.HF_HUB_OFFLINE and not all(is_of_revision(folder, source.name, source.revision) for folder in folders):
            found = f"the local cache has another revision of {source.name} than {source.revision or 'the latest it knows'}"
            raise StageFailed(f"{found}; where there is a network, eva-hpc prefetch fetches the right one")
    if source.column not in table.column_names:
        raise StageFailed(f"the prompts have no column {source.column!r}; they have {', '.join(table.column_names)}")
    return list(table[source.column])


def token_counter(policy: Path) -> Callable[[str], int]:
    """A function that counts the tokens of a prompt in the policy's chat template."""
    from transformers import AutoTokenizer

    model = read_policy(policy)
    tokenizer = AutoTokenizer.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code)

    def count(prompt: str) -> int:
        message = [{"role": "user", "content": prompt}]
        return len(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))

    return count


def token_limit(policy: Path, max_tokens: int) -> int:
    """The most tokens a prompt may have: `max_tokens`, or what leaves the model room for at least one token of response."""
    from transformers import AutoConfig

    model = read_policy(policy)
    config = AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code)
    return min(max_tokens, getattr(config, "max_position_embeddings", max_tokens + 1) - 1)


def select_prompts(
    values: Iterable[Any],
    out: Path,
    *,
    origin: str,
    length: Callable[[str], int],
    max_tokens: int | None,
    limit: int | None,
    split: int = 0,
    contaminated: Callable[[str], str | None] = lambda text: None,
) -> Counts:
    """Write the usable prompts, each once, and set the others aside.

    With `limit`, keep the prompts whose hash is smallest: a sample that does not depend on their order in the file. A later
    `split` takes the next as many in that order, the last one perhaps fewer.

    Raises:
        StageFailed: none is left.
    """
    aside = SetAside()
    kept: dict[str, Prompt] = {}
    read = 0
    for read, value in enumerate(values, start=1):
        text = first_user_turn(value)
        if not text.strip():
            aside.add("empty", {"row": read, "value": value})
            continue
        if not _is_unicode(text):
            aside.add("not valid Unicode", {"row": read, "value": ascii(text)})
            continue
        identifier = content_id(text)
        if identifier in kept:
            aside.add("duplicate", {"row": read, "id": identifier})
        elif max_tokens is not None and length(text) > max_tokens:
            aside.add("too long", {"row": read, "id": identifier, "prompt": text})
        elif (question := contaminated(text)) is not None:
            aside.add("contains an evaluation question", {"row": read, "id": identifier, "prompt": text, "of": question})
        else:
            kept[identifier] = Prompt(id=identifier, prompt=text, source=origin, parent=None, operator=None, depth=0, round=0)
    prompts = list(kept.values())
    if limit is not None and (limit < len(prompts) or split):
        order = sorted((prompt["id"] for prompt in prompts), key=lambda name: derive_seed("limit", name))
        chosen = set(order[split * limit : (split + 1) * limit])
        if not chosen:
            taken = f"{split} samples of {limit} before it"
            raise StageFailed(f"no prompt is left for this round: the source has {len(order)} that can be used, for {taken}")
        for prompt in prompts:
            if prompt["id"] not in chosen:
                aside.add("in another sample" if split else "beyond the limit", {"id": prompt["id"]})
        prompts = [prompt for prompt in prompts if prompt["id"] in chosen]
    if not prompts:
        raise StageFailed(f"none of the {read} prompts can be used: {aside.describe()}")
    write_jsonl(out / "prompts.jsonl", prompts)
    return Counts(read, len(prompts), aside.write(out))


def _is_unicode(text: str) -> bool:
    """Whether the text can be written at all: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_user_turn(value: Any) -> str:
    """The text of a prompt given as a string or as a list of chat messages; empty if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for message in value:
            if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str):
                return str(message["content"])
    return ""

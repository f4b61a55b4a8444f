"""The chosen response of every pair, rewritten: what a better answer to the same prompt looks like to the writer.

responses.jsonl    of each pair the rewritten and the chosen response, so that both are rewarded alike
prompts.jsonl      their prompts
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from eva_hpc.config.creator import LabRewriter, OpenAIEvolver, PolicyEvolver, Writer
from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import EngineName
from eva_hpc.inference.loading import load_config
from eva_hpc.method import rewriting
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.writers import Write, Written, open_writer
from eva_hpc.store.records import Pair, Response, Responses, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed

Improve = Callable[[Sequence[Pair], Sequence[int]], list[Written]]


class Spec(StageSpec):
    """Who writes; `fingerprint` is the hash of a model's content."""

    stage: ClassVar[str] = "rewrite"
    writer: Writer
    fingerprint: str = ""
    seed: int
    round: int

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; rules and requests to a server need one process."""
        return "one" if isinstance(self.writer, LabRewriter | OpenAIEvolver) else "shards"

    @property
    def policy_engine(self) -> EngineName | None:
        """That of the writer, if it is the policy."""
        return self.writer.engine if type(self.writer) is PolicyEvolver else None


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Rewrite this shard's chunks. Inputs: ``pairs``; ``policy``: the writer's if it is the policy, else for its tokenizer."""
    pairs: list[Pair] = read_jsonl(inputs["pairs"] / "pairs.jsonl")
    tokenizer = _Tokenizer(inputs["policy"])

    def rewrite(improve: Improve) -> None:
        def work(piece: Sequence[Pair]) -> list[dict[str, Any]]:
            seeds = [derive_seed(spec.seed, spec.round, "rewrite", pair["prompt_id"]) for pair in piece]
            answers = improve(piece, seeds)
            return [_record(pair, answer, tokenizer) for pair, answer in zip(piece, answers, strict=True)]

        run_chunks(pairs, context.engine.chunk_prompts, context, work)

    if isinstance(spec.writer, LabRewriter):
        rewrite(_by_rules)
    else:
        with open_writer(spec.writer, spec.fingerprint, inputs["policy"], context) as write:
            rewrite(_by_writer(write))
    return Counts(read=len(pairs), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the pairs; a failed rewriting is noted.

    Raises:
        StageFailed: all of them failed.
    """
    count = len(read_jsonl(inputs["pairs"] / "pairs.jsonl"))
    aside, records = SetAside(), []
    for record in read_chunks(count, context.engine.chunk_prompts, context.work):
        if "problem" in record:
            aside.add(f"rewrite failed: {record.pop('problem')}", record)
        else:
            records.append(record)
    counts = aside.write(out)
    if not records:
        raise StageFailed(f"none of the {count} responses could be rewritten: {aside.describe()}")
    unchanged = {"source": "pairs", "parent": None, "operator": None, "depth": 0, "round": spec.round}
    prompts = ({"id": record["prompt_id"], "prompt": record["prompt"], **unchanged} for record in records)
    write_jsonl(out / "prompts.jsonl", prompts)
    return Counts(count, write_jsonl(out / "responses.jsonl", records), counts)


class _Tokenizer:
    """Turns a text into a response of the policy: its tokens as the chat template has them, up to the end of the turn."""

    def __init__(self, policy: Path) -> None:
        model = read_policy(policy)
        self._chat = ChatTokenizer(model)
        self._stop = self._chat.stop_tokens(model, load_config(model))

    def response(self, prompt: str, text: str) -> Response | None:
        """The record of a finished response; None if the template does not show the text, and the text alone, as it is.

        Its text is what the tokens stand for, which may differ in white space at the ends.
        """
        asked = [{"role": "user", "content": prompt}]
        before = self._chat.render(asked)
        whole = self._chat.render([*asked, {"role": "assistant", "content": text}], add_generation_prompt=False)
        tokens = whole[len(before) :]
        end = next((place for place, token in enumerate(tokens) if token in self._stop), None)
        if whole[: len(before)] != before or end is None or end == 0:
            return None
        [shown] = self._chat.responses([tokens[: end + 1]], [0.0], self._stop)
        return {**shown, "logprob": None} if shown["text"].strip() == text.strip() else None

    def is_finished(self, tokens: Sequence[int]) -> bool:
        """Whether a response ends its turn."""
        return tokens[-1] in self._stop


def _record(pair: Pair, answer: Written, tokenizer: _Tokenizer) -> dict[str, Any]:
    prompt_id, prompt = pair["prompt_id"], pair["prompt"]
    if answer.text is None:
        return {"prompt_id": prompt_id, "problem": answer.problem, "detail": answer.detail}
    written = tokenizer.response(prompt, answer.text)
    if written is None:
        return {"prompt_id": prompt_id, "problem": "the chat template changes the text", "detail": answer.text}
    text, tokens = pair["chosen"]["text"], pair["chosen"]["tokens"]
    chosen = Response(text=text, tokens=tokens, finish="stop" if tokenizer.is_finished(tokens) else "length", logprob=None)
    both = Responses(prompt_id=prompt_id, prompt=prompt, prompt_tokens=pair["prompt_tokens"], responses=[written, chosen])
    return dict(both)


def _by_rules(pairs: Sequence[Pair], seeds: Sequence[int]) -> list[Written]:
    from eva_hpc.lab.improver import improve

    return [Written(improve(pair["prompt"], pair["chosen"]["text"], seed)) for pair, seed in zip(pairs, seeds, strict=True)]


def _by_writer(write: Write) -> Improve:
    def improve(pairs: Sequence[Pair], seeds: Sequence[int]) -> list[Written]:
        answers = write([rewriting.message(pair["prompt"], pair["chosen"]["text"]) for pair in pairs], seeds)
        return [_parsed(answer) for answer in answers]

    return improve


def _parsed(answer: Written) -> Written:
    if answer.text is None:
        return answer
    text = rewriting.parse(answer.text)
    return Written(text, "" if text else rewriting.why_failed(answer.text))

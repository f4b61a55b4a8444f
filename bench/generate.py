"""Tokens per second: our generate stage beside bare vLLM on the same requests, and beside one cold pass for each response.

python bench/generate.py [--model FOLDER] [--repeats 3]

    ours          the stage as a job runs it: chat template, sampling, log-probs, text, chunks and the artifact's file on disk
    bare          vllm.LLM as the stage configures it, and one call of its generate(): tokenised prompts in, text out, no file
    bare, own     the same with vLLM's own defaults for everything that the stage sets, its engine in a process of its own
    cold passes   as SPPO's scripts do it: a process for each response index, each with an engine (started as for bare, the
                  faster way), one response to every prompt

Requests are the same everywhere but for the last: a seed for each response. Every line is a process of its own; their order
turns with every repeat, and medians are told. "work" is from the open engine to the last response, for ours to the file; "all"
is the whole process, imports and engine start too. The ratio of the CPU seconds of "work" is deaf to what else runs on the
machine; it says little where a GPU does the work. Then what resuming costs: the stage once more with all its chunks there, and
stopped half-way and started again, which loses the responses that were under way: the fewer prompts, the larger their share.

Without --model a tiny random one is made: what is not vLLM's own work then weighs more than it ever does with a real model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from tabulate import tabulate

SIDES = ("ours", "bare", "bare, own", "cold passes")
PROMPTS = Path(__file__).resolve().parents[1] / "sweeps" / "prompts" / "train.jsonl"
TEMPERATURE, TOP_P, SEED = 0.7, 0.9, 1


def tiny_model(folder: Path) -> None:
    """The lab's policy, untrained, with room for long prompts."""
    import torch
    from transformers import LlamaForCausalLM

    from eva_hpc.lab.policy import new_policy
    from eva_hpc.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    config = new_policy(tokenizer, SEED).config
    config.max_position_embeddings = 2048
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_prompts(words: argparse.Namespace) -> list[str]:
    """The first prompts of the file."""
    lines = words.prompts.read_text().splitlines()
    return [json.loads(line)["prompt"] for line in lines[: words.count]]


# ---------------------------------------------------------------------------- one side, in a process of its own


class Stage:
    """Our stage with its inputs, in a folder; how often it opened an engine, and how long opening and closing took."""

    def __init__(self, words: argparse.Namespace, folder: Path) -> None:
        import torch

        from eva_hpc.config.recipe import Generation
        from eva_hpc.config.site import Engine, Resources
        from eva_hpc.stages import engines, generate
        from eva_hpc.stages.policy import write_policy
        from eva_hpc.store.records import write_jsonl

        self.inputs = {"policy": folder / "policy", "prompts": folder / "prompts"}
        for path in self.inputs.values():
            path.mkdir(parents=True)
        write_policy(self.inputs["policy"], str(words.model), dtype=words.dtype)
        texts = read_prompts(words)
        write_jsonl(self.inputs["prompts"] / "prompts.jsonl", ({"id": f"{i:05d}", "prompt": t} for i, t in enumerate(texts)))
        decoding = Generation(engine="vllm", temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=words.max_new_tokens)
        self.spec = generate.Spec(generation=decoding, responses=words.responses, fraction=1.0, seed=SEED, round=1)
        self.stage = generate
        self.settings = Engine(chunk_prompts=words.chunk)
        self.resources = Resources(threads=words.threads, gpus_per_rank=int(torch.cuda.is_available()))
        self.folder = folder
        self.starts, self.start_s, self.start_cpu_s, self.cpu_s = 0, 0.0, 0.0, 0.0
        opened = engines.open_engine

        def counted(work: Callable[..., Any]) -> Callable[..., Any]:
            def count(*of: Any) -> Any:
                begun, cpu_begun = time.perf_counter(), time.process_time()
                found = work(*of)
                self.start_s += time.perf_counter() - begun
                self.start_cpu_s += time.process_time() - cpu_begun
                return found

            return count

        def open_engine(*of: Any) -> Any:
            self.starts += 1
            engine = counted(opened)(*of)
            engine.close = counted(engine.close)
            return engine

        engines.open_engine = open_engine

    def seconds(self, name: str, half: bool = False) -> float:
        """Of the stage, but for opening and closing its engine, on this work folder; with `half` told to stop half-way."""
        from eva_hpc.stages.contract import Context, Interrupted
        from eva_hpc.store.artifacts import Store

        out = self.folder / name
        work = out / "work"
        work.mkdir(parents=True, exist_ok=True)
        enough = len(read_jsonl(self.inputs["prompts"] / "prompts.jsonl")) // 2

        def stop() -> bool:
            return half and sum(path.read_bytes().count(b"\n") for path in work.glob("chunk-*")) >= enough

        context = Context(
            0, 1, 0, None, self.resources, self.settings, work, Store(self.folder), lambda done, total: None, stop
        )
        before, begun = self.start_s, time.perf_counter()
        cpu_before, cpu_begun = self.start_cpu_s, time.process_time()
        try:
            self.stage.run(self.spec, self.inputs, out, context)
            self.stage.finish(self.spec, self.inputs, out, context)
        except Interrupted:
            assert half
        self.cpu_s = time.process_time() - cpu_begun - (self.start_cpu_s - cpu_before)
        return time.perf_counter() - begun - (self.start_s - before)

    def responses(self, name: str) -> list[list[list[int]]]:
        """The tokens of every response of every prompt."""
        records = read_jsonl(self.folder / name / "responses.jsonl")
        return [[response["tokens"] for response in record["responses"]] for record in records]


def read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def ours(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The stage, to its file."""
    stage = Stage(words, folder)
    work_s = stage.seconds("out")
    return told(stage.responses("out"), stage.start_s, work_s, stage.cpu_s)


def resume(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Uninterrupted, once more with everything there, and in two halves."""
    stage = Stage(words, folder)
    whole = stage.seconds("out")
    starts = stage.starts
    again = stage.seconds("out")
    same_starts = stage.starts == starts
    halves = stage.seconds("halves", half=True), stage.seconds("halves")
    return {
        "whole_s": whole,
        "again_s": again,
        "again_starts_none": same_starts,
        "halves_s": sum(halves),
        "same": stage.responses("out") == stage.responses("halves"),
    }


def bare(words: argparse.Namespace, folder: Path, configured: bool = True, only: int | None = None) -> dict[str, Any]:
    """vLLM itself: all requests, or with `only` one response for each prompt, under one seed."""
    import torch

    from eva_hpc.inference.chat import ChatTokenizer
    from eva_hpc.inference.engine import EngineLimits, ModelSource
    from eva_hpc.inference.loading import load_config
    from eva_hpc.inference.vllm_engine import VllmProcess, set_environment, whole_prompts
    from eva_hpc.store.seeds import derive_seed

    gpu = torch.cuda.is_available()
    source = ModelSource(str(words.model), dtype=words.dtype)
    chat = ChatTokenizer(source)
    config = load_config(source)
    prompts = [chat.render([{"role": "user", "content": text}]) for text in read_prompts(words)]
    longest = config.get_text_config(decoder=True).max_position_embeddings
    begun = time.perf_counter()
    if configured:
        llm = VllmProcess(
            source,
            EngineLimits(threads=words.threads),
            max_model_len=longest,
            enable_prefix_caching=True,
            **whole_prompts(longest),
        ).llm
    else:
        import os

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        set_environment(gpu, words.threads, None)
        from vllm import LLM

        llm = LLM(model=source.path, dtype=source.dtype, **whole_prompts(longest))
    start_s = time.perf_counter() - begun
    from vllm import SamplingParams

    stop = sorted(chat.stop_tokens(source, config))

    def settings(seed: int) -> SamplingParams:
        return SamplingParams(
            seed=seed, temperature=TEMPERATURE, top_p=TOP_P, max_tokens=words.max_new_tokens, stop_token_ids=stop
        )

    if only is None:
        seeds = [[derive_seed(SEED, 1, f"{i:05d}", j) for j in range(words.responses)] for i in range(len(prompts))]
    else:
        seeds = [[only * 50] for _ in prompts]
    begun, cpu_begun = time.perf_counter(), time.process_time()
    outputs = llm.generate(
        [{"prompt_token_ids": tokens} for tokens, own in zip(prompts, seeds, strict=True) for _ in own],
        [settings(seed) for own in seeds for seed in own],
        use_tqdm=False,
    )
    work_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    rest = iter(outputs)
    return told([[list(next(rest).outputs[0].token_ids) for _ in own] for own in seeds], start_s, work_s, cpu_s)


def told(responses: list[list[list[int]]], start_s: float, work_s: float, cpu_s: float) -> dict[str, Any]:
    """What a side says of itself."""
    return {"responses": responses, "start_s": start_s, "work_s": work_s, "cpu_s": cpu_s}


# ---------------------------------------------------------------------------- the table


def run_side(words: argparse.Namespace, side: str, only: int | None = None) -> dict[str, Any]:
    """One side in a new process: what it says, with its seconds as a whole."""
    command = [sys.executable, __file__, *sys.argv[1:], "--model", str(words.model), "--side", side]
    if only is not None:
        command += ["--only", str(only)]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run([*command, "--answer", str(answer)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(answer.read_text())
    return {**found, "all_s": time.perf_counter() - begun, "starts": 1}


def cold_passes(words: argparse.Namespace) -> dict[str, Any]:
    """All passes, one after the other."""
    passes = [run_side(words, "cold passes", only) for only in range(words.responses)]
    added = {name: sum(one[name] for one in passes) for name in ("start_s", "work_s", "all_s", "cpu_s", "starts")}
    return {**added, "responses": [list(chain(*own)) for own in zip(*(one["responses"] for one in passes), strict=True)]}


def compare(words: argparse.Namespace) -> None:
    """Run everything and print the tables."""
    sides = [side for side in SIDES if side not in words.without]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for repeat in range(words.repeats):
        for side in sides[repeat % len(sides) :] + sides[: repeat % len(sides)]:
            if side == "cold passes":
                if not found[side]:
                    found[side].append(cold_passes(words))
            else:
                found[side].append(run_side(words, side))

    def rate(one: dict[str, Any], of: str) -> float:
        return sum(len(tokens) for own in one["responses"] for tokens in own) / float(one[of])

    def median(side: str, of: str) -> float:
        return statistics.median(rate(one, of) for one in found[side])

    reference = {tuple(tokens) for own in found["bare"][0]["responses"] for tokens in own}
    rows = []
    for side in sides:
        own = [tokens for own in found[side][0]["responses"] for tokens in own]
        shared = sum(tuple(tokens) in reference for tokens in own) / len(own)
        rates = [f"{median(side, of):.0f}" for of in ("work_s", "all_s")]
        ratios = [f"{median(side, of) / median('bare', of):.2f}" for of in ("work_s", "all_s", "cpu_s")]
        ratios[-1] = "" if side == "bare, own" else ratios[-1]  # its engine is another process
        rows.append([side, found[side][0]["starts"], len(found[side]), *rates, *ratios, f"{shared:.1%}"])
    count, k = len(found["bare"][0]["responses"]), words.responses
    print(f"{count} prompts x {k} responses of at most {words.max_new_tokens} tokens, chunks of at most {words.chunk} prompts")
    print('tokens per second, and their ratio to "bare"')
    heads = ["", "engine starts", "runs", "work", "all", "ratio, work", "ratio, all", "ratio, CPU", "same as bare"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")

    again = [run_side(words, "resume") for _ in range(words.repeats)]
    share = statistics.median(one["again_s"] / one["whole_s"] for one in again)
    halves = statistics.median(one["halves_s"] / one["whole_s"] for one in again)
    print("resuming, as a share of the uninterrupted stage without its engine's start")
    starts = "no" if all(one["again_starts_none"] for one in again) else "yes"
    rows = [
        ["once more, all chunks there", f"{share:.2%}", starts],
        ["stopped half-way, started again", f"{halves - 1:+.1%}", "yes"],
    ]
    print(tabulate(rows, ["", "costs", "starts an engine"], disable_numparse=True))
    print("\nthe same responses after the stop:", "yes" if all(one["same"] for one in again) else "NO")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description="Generation: ours beside vLLM itself.", epilog="The head of the file has more."
    )
    arguments.add_argument("--model", type=Path, help="folder of a chat model that vLLM runs; without it a tiny one is made")
    arguments.add_argument("--dtype", default=None, help="of the weights; bfloat16 with a GPU, else float32")
    arguments.add_argument("--prompts", type=Path, default=PROMPTS, help='lines of {"prompt": …}')
    arguments.add_argument("--count", type=int, default=300, help="prompts")
    arguments.add_argument("--responses", type=int, default=6, help="for each prompt")
    arguments.add_argument("--max-new-tokens", type=int, default=64)
    arguments.add_argument("--chunk", type=int, default=32, help="prompts of a committed chunk, at most")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--repeats", type=int, default=3, help="runs of which medians are told; cold passes run once")
    arguments.add_argument("--without", action="append", default=[], choices=SIDES[2:], help="leave out a line")
    for internal in ("--side", "--only", "--answer"):
        arguments.add_argument(internal, help=argparse.SUPPRESS)
    words = arguments.parse_args()
    if words.dtype is None:
        import torch

        words.dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    if words.side is None:
        with tempfile.TemporaryDirectory() as folder:
            if words.model is None:
                words.model = Path(folder)
                tiny_model(words.model)
            compare(words)
        return
    with tempfile.TemporaryDirectory() as folder:
        side = {
            "ours": ours,
            "resume": resume,
            "bare": bare,
            "bare, own": lambda words, folder: bare(words, folder, configured=False),
            "cold passes": lambda words, folder: bare(words, folder, only=int(words.only)),
        }[words.side]
        Path(words.answer).write_text(json.dumps(side(words, Path(folder))))


if __name__ == "__main__":
    main()

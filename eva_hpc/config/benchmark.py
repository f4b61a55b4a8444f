"""The benchmarks of a recipe: the lab's, a reward model's on a file of prompts, and the three judged ones.

A judged benchmark takes its official files, by default the ones that ``eva-hpc data fetch`` brings, and a judge: its own or the
recipe's. Short forms: ``arena_hard: arena_hard`` is ``arena_hard: {kind: arena_hard}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from eva_hpc.config.reward import Reward
from eva_hpc.config.section import Section, kind_of, later
from eva_hpc.config.server import Server
from eva_hpc.config.shorthand import BENCHMARK

MT_BENCH_TEMPERATURES: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "reasoning": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "extraction": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""Of MT-Bench answers by category, as FastChat has it (fastchat/llm_judge/common.py); in the order of the question file."""


class LabBenchmark(Section):
    """Held-out lab prompts, easy, medium and hard, and a two-turn part; win rate against the start policy."""

    kind: Literal["lab"] = "lab"
    split: Literal["test", "tune"] = "test"
    prompts: int = Field(default=100, ge=1, description="held-out prompts per difficulty, and dialogues of the two-turn part")
    samples: int = Field(default=4, ge=1, description="sampled answers per prompt")
    greedy: bool = Field(default=True, description="also the greedy answer")


class RewardBenchmark(Section):
    """Held-out prompts from a file, answered and scored by a reward model; win rate against the start policy."""

    kind: Literal["reward"] = "reward"
    path: str = Field(min_length=1, description="a .jsonl or .parquet file")
    column: str = "prompt"
    limit: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=1024, ge=1, description="longer prompts are set aside and counted")
    samples: int = Field(default=1, ge=1, description="sampled answers per prompt")
    greedy: bool = Field(default=False, description="also the greedy answer")
    reward: Reward | None = later(None, description="who judges, in place of the recipe's reward")


# ---------------------------------------------------------------------------- the judge


def _parameter(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PydanticCustomError("plain_value", "must be a number, text, true, false, or null to leave the parameter out")


class Price(Section):
    """What a judge costs, in any currency, per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Judge(Server):
    """A model behind any OpenAI-compatible server. Only `model`, `parameters` and `repeats` decide results."""

    parameters: dict[str, Annotated[bool | int | float | str | None, BeforeValidator(_parameter)]] = Field(
        default_factory=dict,
        description="of the API, in place of the benchmark's own, e.g. {max_tokens: null, max_completion_tokens: 4096}",
    )
    repeats: int = Field(default=1, ge=1, description="how often everything is judged")
    attempts: int = Field(default=8, ge=1, description="of one request, with growing waits in between")
    timeout_s: float = Field(default=600.0, gt=0, description="seconds until a request without an answer is given up")
    price: Price | None = Field(default=None, description="per million tokens, {input: 2.0, output: 8.0}: for the estimate")


# ---------------------------------------------------------------------------- the three judged benchmarks


class AlpacaEvalFiles(Section):
    """Files in the official formats. Null takes the official one."""

    questions: str | None = Field(default=None, description="instructions with the baseline's outputs, as model_outputs.json")
    baseline: str | None = Field(default=None, description="outputs to compare with in place of those, in the same format")
    prompt: str | None = Field(default=None, description="the judge's prompt, as alpaca_eval_clf.txt")
    difficulty: str | None = Field(default=None, description="instruction_difficulty.csv, for the length-controlled win rate")
    gamed: str | None = Field(default=None, description="df_gamed.csv, for the length-controlled win rate")


class ArenaHardFiles(Section):
    """Files in the official formats. Null takes the official one."""

    questions: str | None = Field(default=None, description="question.jsonl")
    baseline: str | None = Field(default=None, description="answers of the model to compare with")
    prompt: str | None = Field(default=None, description="the judge's prompts: judge_config.yaml, or judge_utils.py of v2.0")
    config: str | None = Field(default=None, description="v2.0: its configuration, as arena-hard-v2.0.yaml")
    creative_baseline: str | None = Field(default=None, description="v2.0: as baseline, for creative writing")


class MtBenchFiles(Section):
    """Files in the official formats. Null takes the official one."""

    questions: str | None = Field(default=None, description="question.jsonl")
    prompt: str | None = Field(default=None, description="judge_prompts.jsonl")
    reference: str | None = Field(default=None, description="reference answers for math, reasoning and coding")


class Judged(Section):
    """What the three judged benchmarks have in common."""

    judge: Judge | None = Field(default=None, description="null takes the recipe's")
    limit: int | None = Field(default=None, ge=1, description="only the first so many questions")
    min_coverage: float = Field(
        default=0.95, ge=0, le=1, description="share of judged questions below which there is no number"
    )


class AlpacaEval(Judged):
    """AlpacaEval 2.0: win rate and length-controlled win rate against a baseline, by log-probabilities of the judge."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    files: AlpacaEvalFiles = AlpacaEvalFiles()
    temperature: float = Field(default=0.7, ge=0, description="of the answers; the benchmark leaves it to each model")
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=2048, ge=1)
    both_orders: bool = Field(default=False, description="judge each pair in both orders and take the mean; costs twice")
    labels: Literal["logprobs", "text"] = Field(
        default="logprobs", description="text takes the label the judge writes, for a server without log-probabilities"
    )
    difficulty_by: Literal["instruction", "position"] = Field(
        default="instruction", description="position is the official script's way, which slips where rows are missing"
    )


class ArenaHard(Judged):
    """Arena-Hard-Auto: win rate against a baseline over two games per question; by Bradley-Terry in v0.1."""

    kind: Literal["arena_hard"] = "arena_hard"
    version: Literal["v0.1", "v2.0"] = Field(default="v0.1", description="v0.1 is the one of papers up to 2024")
    files: ArenaHardFiles = ArenaHardFiles()
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=4096, ge=1)


class MtBench(Judged):
    """MT-Bench: ratings from 1 to 10 of the answers to two turns."""

    kind: Literal["mt_bench"] = "mt_bench"
    files: MtBenchFiles = MtBenchFiles()
    temperature: float = Field(default=0.7, ge=0, description="of the answers in categories that `temperatures` does not name")
    temperatures: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: dict(MT_BENCH_TEMPERATURES), description="of the answers, by category"
    )
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, ge=1)


JudgedBenchmark = AlpacaEval | ArenaHard | MtBench
Benchmark = Annotated[
    Annotated[LabBenchmark, Tag("lab")]
    | Annotated[RewardBenchmark, Tag("reward")]
    | Annotated[AlpacaEval, Tag("alpaca_eval")]
    | Annotated[ArenaHard, Tag("arena_hard")]
    | Annotated[MtBench, Tag("mt_bench")],
    Discriminator(kind_of),
    BENCHMARK,
]
BenchmarkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def official_roles(benchmark: JudgedBenchmark) -> tuple[str, ...]:
    """The files that a benchmark takes from the official set: those it does not name, of questions that are official.

    Own questions have no official baseline, reference answers, difficulties or gamed rows; the judge's prompt may still be. Nor
    does AlpacaEval's length control know another baseline than the official one.
    """
    files: Mapping[str, str | None] = benchmark.files.model_dump()
    alpaca = isinstance(benchmark, AlpacaEval)
    own = files["questions"] is not None or (alpaca and files.get("baseline") is not None)
    new = isinstance(benchmark, ArenaHard) and benchmark.version == "v2.0"
    return tuple(
        role
        for role, text in files.items()
        if text is None
        and (role in ("prompt", "config") or not own or (role == "questions" and alpaca))
        and not (alpaca and role == "baseline")
        and (new or role not in ("config", "creative_baseline"))
    )


def official_set(benchmark: JudgedBenchmark) -> str:
    """The name of the benchmark's official files, as ``eva-hpc data fetch`` knows them."""
    return "arena_hard_v2" if isinstance(benchmark, ArenaHard) and benchmark.version == "v2.0" else benchmark.kind


JUDGED_WITH = ("prompt", "config", "baseline", "creative_baseline", "reference")
SCORED_WITH = ("difficulty", "gamed")
"""Roles of files that only judging, and only the arithmetic, reads: others leave answers as they are, or judgments."""

OFFICIAL_SETS: Mapping[str, tuple[str, str]] = {
    "alpaca_eval": ("alpaca_eval", ""),
    "arena_hard": ("arena_hard", "v0.1"),
    "arena_hard_v2": ("arena_hard", "v2.0"),
    "mt_bench": ("mt_bench", ""),
}
"""Kind and edition of each official set."""

USUAL_TOKENS: Mapping[str, tuple[int, int]] = {"alpaca_eval": (930, 1), "arena_hard": (1800, 600), "mt_bench": (1050, 190)}
"""Of one request to a judge and its reply, by kind. AlpacaEval's are means over three models' official judgments; the others
are estimated from the characters of published judgments, four to a token."""

OFFICIAL_JUDGES: Mapping[str, str] = {
    "alpaca_eval": "gpt-4-1106-preview",
    "arena_hard": "gpt-4-1106-preview",
    "arena_hard_v2": "gemini-2.5",
    "mt_bench": "gpt-4",
}
"""The judges of published numbers, by official set. Numbers of another judge are not comparable with these."""


def judge_in_words(benchmark: JudgedBenchmark, judge: Judge) -> str:
    """The judge for a table; one that is not the official one says in whose place it is."""
    official = OFFICIAL_JUDGES[official_set(benchmark)]
    return judge.model if judge.model == official else f"{judge.model} in place of {official}"

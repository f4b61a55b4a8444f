"""The official files of the benchmarks: what each is for, its public home pinned to a commit, and the checksum of its content.

Nothing here reads or writes a file: `data_folder` knows where they lie, `fetch` brings them there.
"""

from __future__ import annotations

from collections.abc import Iterable

from eva_hpc.benchmarks.official.data_file import DataFile, StandIn
from eva_hpc.config.errors import ConfigError, did_you_mean

CC_BY_NC = "CC BY-NC 4.0"
APACHE = "Apache-2.0"


def files_of(sets: Iterable[str], calibration: bool = False) -> list[DataFile]:
    """The files of some sets, in the order of the catalogue; with `calibration` also those that only calibration needs.

    Raises:
        ConfigError: there is no such set.
    """
    known = list(dict.fromkeys(file.set for file in CATALOGUE))
    wanted = list(sets)
    problems = [
        f"{name}: no such benchmark; must be one of {', '.join(known)}{did_you_mean(name, known)}"
        for name in wanted
        if name not in known
    ]
    if problems:
        raise ConfigError(*problems)
    return [file for file in CATALOGUE if file.set in wanted and (calibration or not file.calibration)]


def stand_in_of(content: bytes) -> StandIn | None:
    """The stand-in of any file in the catalogue that has this content."""
    return next((stand_in for file in CATALOGUE if (stand_in := file.stand_in(content))), None)


_GITHUB = "https://raw.githubusercontent.com"
_ALPACA_EVAL = f"{_GITHUB}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_ALPACA_EVAL_HUB = "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/2edc6fad8be6b14ea7230aabfd08188da6b8b814"
_ARENA_HARD = f"{_GITHUB}/lmarena/arena-hard-auto/196f6b826783b3da7310e361a805fa36f0be83f3"
_ARENA_HARD_2024 = f"{_GITHUB}/lmarena/arena-hard-auto/0489bf384abd010906014dec7b903f7c438eabba"
_MT_BENCH = f"{_GITHUB}/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/data"


def _alpaca_eval_outputs(model: str, sha256: str, size: int) -> DataFile:
    """Outputs of a model on the leaderboard."""
    return DataFile(
        set="alpaca_eval",
        path=f"alpaca_eval/models/{model}/model_outputs.json",
        role="answers",
        model=model,
        url=f"{_ALPACA_EVAL}/results/{model}/model_outputs.json",
        licence=CC_BY_NC,
        sha256=sha256,
        size=size,
        calibration=True,
    )


def _arena_hard_answers(model: str, sha256: str, size: int, role: str) -> DataFile:
    """Answers to version 0.1."""
    return DataFile(
        set="arena_hard",
        path=f"arena_hard/model_answer/{model}.jsonl",
        role=role,
        model=model,
        url=f"{_ARENA_HARD}/data/arena-hard-v0.1/model_answer/{model}.jsonl",
        licence=APACHE,
        sha256=sha256,
        size=size,
        calibration=role == "answers",
    )


CATALOGUE: tuple[DataFile, ...] = (
    # ------------------------------------------------------------------------ AlpacaEval 2.0
    DataFile(
        set="alpaca_eval",
        path="alpaca_eval/model_outputs.json",
        role="questions",  # and the answers of the baseline, gpt4_1106_preview
        url=f"{_ALPACA_EVAL}/results/gpt4_1106_preview/model_outputs.json",
        licence=CC_BY_NC,
        sha256="83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
        size=1_899_765,
    ),
    DataFile(
        set="alpaca_eval",
        path="alpaca_eval/alpaca_eval_clf.txt",
        role="prompt",
        url=f"{_ALPACA_EVAL}/src/alpaca_eval/evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
        licence=APACHE,
        sha256="784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
        size=1_398,
    ),
    DataFile(
        set="alpaca_eval",
        path="alpaca_eval/instruction_difficulty.csv",
        role="difficulty",
        url=f"{_ALPACA_EVAL_HUB}/instruction_difficulty.csv",
        licence=CC_BY_NC,
        sha256="e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
        stand_ins=(
            StandIn(
                sha256="fb387ac539be196329899c3cc078a5348af03e63b8b6fcea25f464733162132d",
                size=13_694,
                note="instruction_difficulty.csv is a stand-in: recovered difficulties, exact to 9 decimals",
            ),
        ),
    ),
    DataFile(
        set="alpaca_eval",
        path="alpaca_eval/df_gamed.csv",
        role="gamed",
        url=f"{_ALPACA_EVAL_HUB}/df_gamed.csv",
        licence=CC_BY_NC,
        sha256="97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
        stand_ins=(
            StandIn(
                sha256="84688ac478bf8d2af3e6151dcd20ee34c01dc8bdd683cad2ca33bb9444d85009",
                size=154_246,
                note="df_gamed.csv is a stand-in: features exact, preferences reconstructed; over 57 models "
                "the LC win rate came out within 0.15 of the published one, mostly within 0.001",
            ),
        ),
    ),
    DataFile(
        set="alpaca_eval",
        path="alpaca_eval/leaderboard.csv",
        role="leaderboard",
        url=f"{_ALPACA_EVAL}/src/alpaca_eval/leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv",
        licence=APACHE,
        sha256="fe32bf85c2f7429038faa4c9a884d1d131726454ff84a4b810a91c1c7a2aa0e9",
        size=28_339,
        calibration=True,
    ),
    # From the bottom of the leaderboard to its top, and the two that differ in length only.
    _alpaca_eval_outputs("alpaca-7b", "21048628f20187affc7d9c9e756d9618e08c4991fc8a48184612eb484565c5db", 539_271),
    _alpaca_eval_outputs("llama-2-13b-chat-hf", "75ff67385486aef7c93ef5cf57ca29d2fc377b04ae3cb71fe107d7062948647f", 1_460_592),
    _alpaca_eval_outputs("gpt35_turbo_instruct", "bf79e46d036cd24d50dbeaf37a09a2529ff0aca9ac39938c7bdbc22fcce1f9f0", 1_062_162),
    _alpaca_eval_outputs(
        "Meta-Llama-3-8B-Instruct", "c698a502f05b2de1270562073807a6161f0f335f3ed3879ba3666b1d8af1bec6", 1_783_699
    ),
    _alpaca_eval_outputs("claude-2.1", "75c39fa8e8b38380b7850b422e0f36c5cba3bc5bd8c496a7833cba6f2d72c332", 1_114_103),
    _alpaca_eval_outputs(
        "FuseChat-Llama-3.2-1B-Instruct", "94de1cd88af0250a1adead73fd9f6b3d9f08be78adc447bf35f938c9c618db49", 2_089_695
    ),
    _alpaca_eval_outputs(
        "Meta-Llama-3-70B-Instruct", "d88208d379e6ece0cfa923be521b068a557f7bd84fdc5568d6151918d6004d45", 1_800_940
    ),
    _alpaca_eval_outputs(
        "Llama-3-Instruct-8B-SimPO", "dd66f4006899bf5419233a30c072fa6b837bdba6e94d9f46615b2c0ab9fb8416", 1_724_509
    ),
    _alpaca_eval_outputs("gpt-4o-2024-05-13", "653c131d58e8d5802203c85e80ca3fb4b378f22e2a0280ad5cd910ff0bee9535", 1_763_464),
    _alpaca_eval_outputs(
        "gpt4_1106_preview_concise", "eff59f86f4da5bd23964af58ba2f7dd3341be2884e20958d21fca49456891627", 1_162_116
    ),
    _alpaca_eval_outputs(
        "gpt4_1106_preview_verbose", "b0f5a776fdeaf0a39db7f8f1b10ee5a4613468ff5c7b7a577645ea23f2995e38", 2_194_834
    ),
    # ------------------------------------------------------------------------ Arena-Hard v0.1
    DataFile(
        set="arena_hard",
        path="arena_hard/question.jsonl",
        role="questions",
        url=f"{_ARENA_HARD}/data/arena-hard-v0.1/question.jsonl",
        licence=APACHE,
        sha256="2650242d2883f22b2abd498f273b6a7e02253cce533f5c91a858e1d44aa3002f",
        size=272_075,
    ),
    DataFile(
        set="arena_hard",
        path="arena_hard/judge_config.yaml",
        role="prompt",
        url=f"{_ARENA_HARD_2024}/config/judge_config.yaml",
        licence=APACHE,
        sha256="6e001736bacacdb1591ffca7eec953a7089f8f5604872d1ca4f9a6f9de1ee451",
        size=2_400,
    ),
    _arena_hard_answers(
        "gpt-4-0314", "0f6abc84de4600fde987d9db70f838f4ecdbd27a2f1f4058c12aa322a6f791b2", 1_270_631, role="baseline"
    ),
    DataFile(
        set="arena_hard",
        path="arena_hard/leaderboard.csv",
        role="leaderboard",
        url=f"{_ARENA_HARD}/leaderboard/arena_hard_leaderboard_20240731.csv",
        licence=APACHE,
        sha256="dcc532f251a307f9cb23cb9ac04711e142157f32b934ee752a5456d336a6fe33",
        size=4_257,
        calibration=True,
    ),
    _arena_hard_answers(
        "gpt-3.5-turbo-0125", "5cfec14570206ec251c3506d36951db87ca869757be75d6075a20120c3cbb616", 1_070_610, role="answers"
    ),
    _arena_hard_answers(
        "gpt-4-0613", "055c37c6b230c87413f080c916deba18c6cace3d44b3d456009f1a3d3834a04b", 1_116_462, role="answers"
    ),
    # ------------------------------------------------------------------------ Arena-Hard v2.0
    DataFile(
        set="arena_hard_v2",
        path="arena_hard_v2/question.jsonl",
        role="questions",
        url=f"{_ARENA_HARD}/data/arena-hard-v2.0/question.jsonl",
        licence=APACHE,
        sha256="a75cef6623db6b27aec810497b059f0659705d7ff48dcbccc5bd5b130728ac73",
        size=947_596,
    ),
    DataFile(
        set="arena_hard_v2",
        path="arena_hard_v2/judge_utils.py",
        role="prompt",  # of the system, by category; that of the user is in the configuration
        url=f"{_ARENA_HARD}/utils/judge_utils.py",
        licence=APACHE,
        sha256="cbb093f4fc27408d8447e946392f26f98538b1e3950f574aca91a0f7595167b4",
        size=3_957,
    ),
    DataFile(
        set="arena_hard_v2",
        path="arena_hard_v2/arena-hard-v2.0.yaml",
        role="config",
        url=f"{_ARENA_HARD}/config/arena-hard-v2.0.yaml",
        licence=APACHE,
        sha256="ee68e5c6ac98a79720bf11014fc3f7fc3c3e5899153b3b08efe3db0e174215a0",
        size=543,
    ),
    DataFile(
        set="arena_hard_v2",
        path="arena_hard_v2/model_answer/o3-mini-2025-01-31.jsonl",
        role="baseline",
        model="o3-mini-2025-01-31",
        url=f"{_ARENA_HARD}/data/arena-hard-v2.0/model_answer/o3-mini-2025-01-31.jsonl",
        licence=APACHE,
        sha256="c23a7c255eead99f7f86ad48aa1d8ccdb5b3334f2097e0e1e09184df87265e03",
        size=4_184_593,
    ),
    DataFile(
        set="arena_hard_v2",
        path="arena_hard_v2/model_answer/gemini-2.0-flash-001.jsonl",
        role="creative_baseline",
        model="gemini-2.0-flash-001",
        url=f"{_ARENA_HARD}/data/arena-hard-v2.0/model_answer/gemini-2.0-flash-001.jsonl",
        licence=APACHE,
        git_blob="75513a4feb8e2f642a9bdb952d1c3ed245b9c952",
    ),
    # ------------------------------------------------------------------------ MT-Bench
    DataFile(
        set="mt_bench",
        path="mt_bench/question.jsonl",
        role="questions",
        url=f"{_MT_BENCH}/mt_bench/question.jsonl",
        licence=APACHE,
        sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        size=48_929,
    ),
    DataFile(
        set="mt_bench",
        path="mt_bench/judge_prompts.jsonl",
        role="prompt",
        url=f"{_MT_BENCH}/judge_prompts.jsonl",
        licence=APACHE,
        sha256="fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
        size=10_449,
    ),
    DataFile(
        set="mt_bench",
        path="mt_bench/reference_answer/gpt-4.jsonl",
        role="reference",
        model="gpt-4",
        url=f"{_MT_BENCH}/mt_bench/reference_answer/gpt-4.jsonl",
        licence=APACHE,
        sha256="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        size=51_109,
    ),
)

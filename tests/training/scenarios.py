"""Real trainings on real ranks, for test_trainer.py: ``python -m tests.training.scenarios FOLDER``.

torch, transformers and DeepSpeed are imported once; the ranks are then forked off, for each training or for several one after
the other. Each leaves what training wrote in FOLDER/NAME/, and what it reported or raised in FOLDER/NAME/rank-R.json.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import shutil
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eva_hpc.config.optimiser import DPO, IPO, ORPO, RPO, SPPO, Optimiser, SimPO
from eva_hpc.config.site import Engine
from eva_hpc.store.records import Pair

COMMON: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 6,
    "warmup_ratio": 0.2,
    "max_grad_norm": 0.5,
    "max_length": 40,
    "max_prompt_length": 24,
    "precision": "fp32",
}
SETTINGS = DPO(**COMMON, beta=0.5, epochs=2, weight_decay=0.1, gradient_checkpointing=True)
FEW: dict[str, Any] = {**COMMON, "batch_size": 4, "steps": 3, "gradient_checkpointing": False}
LOSSES: dict[str, Optimiser] = {
    "ipo": IPO(**FEW),
    "sppo": SPPO(**FEW | {"learning_rate": 1e-4}, beta=0.05),
    "rpo": RPO(**FEW, alpha=0.5),
    "simpo": SimPO(**FEW),
    "orpo": ORPO(**FEW),
}
"""Of the trainings with other losses than DPO; IPO's is compared with another reference than the start policy."""
SEED = 5


def random_pairs(count: int, vocabulary: int = 300) -> list[Pair]:
    """Pairs of random tokens, none too long for SETTINGS."""
    draw = random.Random(3)

    def tokens(shortest: int, longest: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(shortest, longest))]

    return [
        {
            "prompt_id": f"p{index}",
            "prompt": "",
            "prompt_tokens": tokens(1, 20),
            "chosen": {"text": "", "tokens": tokens(1, 15), "reward": 1.0, "win_probability": 0.6 + 0.3 * index / count},
            "rejected": {"text": "", "tokens": tokens(1, 15), "reward": 0.0, "win_probability": 0.2},
        }
        for index in range(count)
    ]


PAIRS = random_pairs(20)
TOO_LONG: Pair = {**random_pairs(1)[0], "prompt_id": "long", "prompt_tokens": [1] * 25}


def _in_ranks(world_size: int, work: Callable[[int, int], None]) -> None:
    """Fork `world_size` processes and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            try:
                work(rank, port)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit("a rank failed")


@dataclasses.dataclass(frozen=True)
class Training:
    """The arguments of one call of `train`. `stop` gets the rank and how often it was asked before."""

    folder: Path
    model: Path
    limits: Engine
    pairs: list[Pair] = dataclasses.field(default_factory=lambda: PAIRS)
    settings: Optimiser = SETTINGS
    reference: Path | None = None
    cache: Path | None = None
    sampler: str | None = None
    stop: Callable[[int, int], bool] = lambda rank, calls: False


def source(model: Path) -> Any:
    return SimpleNamespace(path=str(model), revision=None, attention="sdpa", trust_remote_code=False)


def trainings(world_size: int, *wanted: Training) -> None:
    """Call `train` on every rank, once for each."""
    from eva_hpc.training.distributed import distributed

    def work(rank: int, port: int) -> None:
        with distributed(rank, world_size, rank, ("127.0.0.1", port), 1) as ranks:
            for one in wanted:
                (one.folder / f"rank-{rank}.json").write_text(json.dumps(outcome(one, ranks)))

    for one in wanted:
        one.folder.mkdir(parents=True, exist_ok=True)
    _in_ranks(world_size, work)


def outcome(one: Training, ranks: Any) -> dict[str, Any]:
    """What a training reports or raises."""
    from eva_hpc.training.trainer import train

    asked = 0

    def asked_to_stop() -> bool:
        nonlocal asked
        asked += 1
        return one.stop(ranks.rank, asked - 1)

    try:
        report = train(
            one.settings,
            source(one.model),
            one.pairs,
            reference=one.reference and source(one.reference),
            seed=SEED,
            out=one.folder,
            work=one.folder / "work",
            ranks=ranks,
            limits=one.limits,
            reference_cache=one.cache,
            sampler=one.sampler,
            progress=lambda done, total: None,
            stop=asked_to_stop,
        )
    except Exception as error:
        traceback.print_exc()
        return {"raised": type(error).__name__, "message": str(error)}
    return dataclasses.asdict(report)


def training(folder: Path, model: Path, *, world_size: int, tokens: int, **arguments: Any) -> None:
    """One call of `train` on every rank, with so many tokens in a forward pass."""
    trainings(world_size, Training(folder, model, **{"limits": limits(tokens), **arguments}))


def limits(tokens: int, **switches: Any) -> Engine:
    """An hour between checkpoints, so that none is written but where training is stopped."""
    return Engine(micro_batch_tokens=tokens, checkpoint_minutes=60.0, **switches)


def with_noted(pair: Pair, trained: Path, error: float) -> Pair:
    """The pair with its reference log-probs in an earlier training as those of the sampler, the chosen one's off by `error`."""
    from eva_hpc.training.reference import read

    known = read([pair], [trained / "reference.safetensors"])
    sides = {
        "chosen": {**pair["chosen"], "logprob": float(known.chosen[0]) + error},
        "rejected": {**pair["rejected"], "logprob": float(known.rejected[0])},
    }
    return {**pair, **sides, "policy": "theta"}  # type: ignore[typeddict-item]


def main(folder: Path) -> None:
    """All scenarios."""
    from eva_hpc.training import sampler_logps, trainer  # noqa: F401  imported here, it need not be imported in every rank
    from tests.tiny_models import tiny_policy

    gc.collect()
    gc.freeze()
    llama, gemma = folder / "llama", folder / "gemma2"
    _in_ranks(1, lambda rank, port: (tiny_policy(llama, "llama"), tiny_policy(gemma, "gemma2"))[0] and None)

    training(folder / "two_ranks", llama, world_size=2, tokens=64, pairs=[*PAIRS, TOO_LONG], cache=folder / "cache")
    training(
        folder / "one_rank",
        llama,
        world_size=1,
        tokens=256,
        settings=SETTINGS.model_copy(update={"gradient_checkpointing": False}),
        limits=limits(256, packing=False, shared_prompt=False),
    )
    training(folder / "four_ranks", llama, world_size=4, tokens=64, limits=limits(64, shared_prompt=False))

    # What a sampler noted: right but for rounding, and for most pairs; and wrong.
    sampler_logps.TRIED = 5
    for name, error in (("sampled", 0.001), ("sampled_wrongly", 1.0)):
        noted = [with_noted(pair, folder / "two_ranks", error * (-1) ** number) for number, pair in enumerate(PAIRS)]
        noted[0]["policy"] = "another"
        training(folder / name, llama, world_size=2, tokens=64, pairs=noted, sampler="theta")

    # Stopped by rank 1 alone, while the reference is computed and after the third step; then a torn log.
    resumed = folder / "resumed"
    training(resumed, llama, world_size=2, tokens=64, stop=lambda rank, calls: rank == 1 and calls == 1)
    shutil.copytree(resumed, folder / "stopped_in_reference")
    training(resumed, llama, world_size=2, tokens=64, stop=lambda rank, calls: rank == 1 and calls == 3)
    shutil.copytree(resumed, folder / "stopped")
    with (resumed / "train_log.jsonl").open("a") as log:
        log.write('{"step":4,"loss":9.9}\n{"step":5,"lo')
    training(resumed, llama, world_size=2, tokens=64)

    # Its checkpoint is of two ranks.
    shutil.copytree(folder / "stopped", folder / "fewer_ranks")
    training(folder / "fewer_ranks", llama, world_size=1, tokens=256)

    few = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 4})
    training(folder / "gemma2_trained", gemma, world_size=2, tokens=64, pairs=PAIRS[:7], settings=few)
    training(folder / "stale_reference", gemma, world_size=2, tokens=64, settings=few, cache=folder / "cache")
    half = few.model_copy(update={"precision": "bf16"})
    training(folder / "bf16", llama, world_size=2, tokens=64, pairs=PAIRS[:7], settings=half)
    other_losses(folder, llama, gemma)


def frozen_then_gone(folder: Path, model: Path) -> None:
    """Leaves in frozen.json how many parameters a frozen policy had, and how many are in memory after it."""
    import torch

    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.engine import frozen
    from eva_hpc.training.packing import lay_out, trees_of

    def parameters() -> int:
        return sum(isinstance(thing, torch.nn.Parameter) for thing in gc.get_objects())

    with distributed(0, 1, 0, None, 1) as ranks:
        batch = lay_out(trees_of(PAIRS[0], True), True, ranks.device)
        with frozen(SETTINGS, source(model), ranks, limits(64)) as log_probs, torch.no_grad():
            before = parameters()
            log_probs(batch)
            during = parameters()
        (folder / "frozen.json").write_text(json.dumps([before, during, parameters()]))


def other_losses(folder: Path, llama: Path, gemma: Path) -> None:
    """Few steps with each loss; SPPO is also stopped by rank 1 after its first step and resumed by other processes."""
    bare = [{**pair, "rejected": {**pair["rejected"], "win_probability": None}} for pair in PAIRS[:1]]
    losses = [
        Training(folder / loss, llama, limits(64), PAIRS[:7], settings, reference=gemma if loss == "ipo" else None)
        for loss, settings in LOSSES.items()
    ]
    stopped = dataclasses.replace(losses[1], folder=folder / "sppo_resumed", stop=lambda rank, calls: rank == 1 and calls == 1)
    trainings(
        2,
        *losses,
        Training(folder / "no_pairs", llama, limits(64), [TOO_LONG]),
        Training(folder / "no_win_probability", llama, limits(64), bare, LOSSES["sppo"]),  # type: ignore[arg-type]
        stopped,
    )
    shutil.copytree(stopped.folder, folder / "sppo_stopped")
    _in_ranks(1, lambda rank, port: frozen_then_gone(folder, gemma))
    trainings(2, dataclasses.replace(losses[1], folder=stopped.folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

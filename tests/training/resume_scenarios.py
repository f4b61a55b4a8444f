"""Trainings that go on with another number of ranks, for test_resume.py: ``python -m tests.training.resume_scenarios FOLDER``.

A training here is six steps of a tiny model on random tokens, through DeepSpeed and `checkpoints` but without the trainer. Each
leaves FOLDER/NAME/result.pt: {"start": the step gone on from, "losses": by step, "restored": state at the start, "state": state
at the end, "raised": what was raised}, a state being {parameter: {"weights": whole tensor, "exp_avg": …}}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import shutil
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

STEPS = 6
STOP = 3
VOCABULARY = 300


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is trained, and how."""

    rule: Literal["adamw", "rmsprop"] = "adamw"
    precision: Literal["fp32", "bf16"] = "fp32"
    most_frozen: bool = False

    @property
    def name(self) -> str:
        return f"{self.rule}_{self.precision}{'_most_frozen' if self.most_frozen else ''}"


KINDS = (Kind(), Kind(rule="rmsprop"), Kind(precision="bf16"), Kind(most_frozen=True))
CHANGES = ((1, 2), (2, 1), (2, 4), (4, 2), (2, 2))
OFFLOADED = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
SECOND_COPY = {"zero_hpz_partition_size": 2}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training in `folder`, which may hold a checkpoint. It saves after each of the steps `save_at`.

    `memory` is what DeepSpeed is told of where to keep things.
    """

    folder: Path
    model: Path
    kind: Kind
    save_at: tuple[int, ...] = ()
    until: int = STEPS
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)


def in_ranks(world_size: int, *wanted: Run) -> None:
    """Fork the ranks and call :func:`train` on each, once for every wanted training."""
    from eva_hpc.training.distributed import distributed

    def work(rank: int) -> None:
        with distributed(rank, world_size, rank, ("127.0.0.1", port), 1) as ranks:
            for run in wanted:
                with (run.folder / f"log-{rank}.txt").open("w") as log, logged_to(log):
                    train(run, ranks)

    for run in wanted:
        run.folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork(world_size, work)


def fork(count: int, work: Callable[[int], None]) -> None:
    """Call `work` with 0, 1, … in processes of their own and wait for them."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                work(number)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        sys.exit("a rank failed")


@contextlib.contextmanager
def logged_to(file: Any) -> Any:
    handler = logging.StreamHandler(file)
    logging.getLogger("eva_hpc").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("eva_hpc").removeHandler(handler)


def made_engine(run: Run) -> Any:
    """ZeRO-3 as the trainer configures it, but with groups of parameters cut further, as those of large models are."""
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM

    kind = run.kind
    model = AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.float32 if kind.precision == "fp32" else torch.bfloat16)
    if kind.most_frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("v_proj" in name or name == "model.norm.weight")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": 0.1},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    rule = {"adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[kind.rule]
    configuration = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": kind.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,
            "sub_group_size": 20_000,
            **run.memory,
        },
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=rule(groups, lr=1e-3), config=configuration, dist_init_required=False
    )
    return engine


def state_of(engine: Any) -> dict[str, dict[str, Any]]:
    """Whole tensors of all parameters that are trained, float32; on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    optimiser = engine.optimizer.optimizer
    keys = [key for key, value in next(iter(optimiser.state.values()), {}).items() if value.dim()]
    trained = [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
    state = {
        name: {
            "weights": safe_get_full_fp32_param(parameter).clone(),
            **{key: safe_get_full_optimizer_state(parameter, key).clone() for key in keys},
        }
        for name, parameter in trained
    }
    state["steps"] = {"optimiser": {int(one["step"]) for one in optimiser.state.values()}, "engine": engine.global_steps}
    return state


def train(run: Run, ranks: Any) -> None:
    """What remains of the steps; rank 0 writes the result."""
    import torch

    from eva_hpc.training import checkpoints

    result: dict[str, Any] = {"losses": {}, "raised": None}
    engine = made_engine(run)
    try:
        result["start"] = checkpoints.restore(engine, run.folder / "checkpoints", STEPS, ranks)
        result["restored"] = state_of(engine)
        for step in range(result["start"], run.until):
            for group in engine.optimizer.param_groups:
                group["lr"] = 1e-3 * (step + 1) / STEPS
            draw = torch.Generator().manual_seed(step)
            tokens = torch.randint(VOCABULARY, (8, 12), generator=draw)[ranks.rank :: ranks.world_size]
            loss = engine(input_ids=tokens, labels=tokens, use_cache=False).loss
            engine.backward(loss)
            engine.step()
            result["losses"][step] = (ranks.sum(loss) / ranks.world_size).item()
            if step + 1 in run.save_at:
                checkpoints.save(engine, run.folder / "checkpoints", step + 1, ranks)
                result["saved"] = state_of(engine)
        result["state"] = state_of(engine)
    except OSError as error:
        result["raised"] = str(error)
    ranks.wait()
    engine.destroy()
    gc.collect()
    if ranks.rank == 0:
        torch.save(result, run.folder / "result.pt")


def main(folder: Path) -> None:
    """All scenarios."""
    from eva_hpc.training import distributed  # noqa: F401  must come before deepspeed

    # isort: split
    import deepspeed
    from transformers import LlamaForCausalLM  # noqa: F401  imported here, it need not be imported in every rank

    from tests.tiny_models import tiny_policy

    deepspeed.ops.__compatible_ops__ = {}  # an op that DeepSpeed would compile

    gc.collect()
    gc.freeze()
    model = folder / "model"
    fork(1, lambda _: tiny_policy(model, "llama") and None)

    # Those of two ranks are not interrupted, but leave the checkpoint of their third step.
    for ranks in (1, 2, 4):
        until = STEPS if ranks == 2 else STOP
        in_ranks(ranks, *(Run(folder / f"{kind.name}_{ranks}", model, kind, (STOP,), until) for kind in KINDS))

    def stopped(written: str, name: str) -> Path:
        shutil.copytree(folder / written / "checkpoints", folder / name / "checkpoints")
        return folder / name

    for after in (1, 2, 4):
        in_ranks(
            after,
            *(
                Run(
                    stopped(f"{kind.name}_{before}", f"{kind.name}_{before}_to_{after}"),
                    model,
                    kind,
                    save_at=(STOP + 1,),
                    until=STOP + 1 if after == 4 else STEPS,
                )
                for kind in KINDS
                for before, then in CHANGES
                if then == after
            ),
        )
    # Those stopped once more.
    again = [Run(stopped(f"{kind.name}_2_to_4", f"{kind.name}_2_to_4_to_2"), model, kind) for kind in KINDS]

    # The same number of ranks or another, with other places for weights and states.
    in_ranks(1, Run(stopped("adamw_bf16_2", "offloaded"), model, Kind(precision="bf16"), (STOP + 1,), STOP + 1, OFFLOADED))
    again.append(Run(stopped("offloaded", "no_longer_offloaded"), model, Kind(precision="bf16")))
    in_ranks(4, Run(stopped("adamw_bf16_2", "second_copy"), model, Kind(precision="bf16"), memory=SECOND_COPY))

    flipped = Run(stopped("adamw_fp32_4", "damaged"), model, Kind(), until=1)
    path = folder / "damaged" / "checkpoints" / f"step-{STOP:08d}" / "zero_pp_rank_3_mp_rank_00_optim_states.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    other_parameters = Run(stopped("adamw_fp32_4", "other_parameters"), model, Kind(most_frozen=True))
    in_ranks(2, *again, flipped, other_parameters)


def small_disk(folder: Path, model: Path) -> None:
    """Save twice where there is room for only one checkpoint, then go on from what is there."""
    in_ranks(1, Run(folder, model, Kind(), save_at=(1, 2)))
    shutil.copy(folder / "result.pt", folder / "full.pt")
    in_ranks(1, Run(folder, model, Kind(), until=2))


if __name__ == "__main__":
    if sys.argv[1] == "small-disk":
        small_disk(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))

"""Our losses are those of TRL's trainers, where TRL has them. Its DPO trainer gets per-token log-probs instead of a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eva_hpc.config.optimiser import DPO, IPO, ORPO, RPO, SPPO, Optimiser, SimPO

pytestmark = pytest.mark.slow

PROMPT_TOKENS = 3
PAIRS = [(5, 2, 0.3), (1, 9, 2.0), (7, 7, 0.01), (4, 30, 6.0)]
"""Tokens of chosen and of rejected, and how unlikely these tokens are."""


@pytest.fixture(scope="module")
def trainer(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a TRL trainer, its configuration and the settings of that, a trainer of a tiny model."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(tmp_path_factory.mktemp("trl"))
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    data = Dataset.from_list([{"prompt": "Sort", "chosen": " these", "rejected": " words"}])

    def made(kind: Any, configuration: Any, **settings: Any) -> Any:
        arguments = configuration(folder, report_to=[], use_cpu=True, bf16=False, **settings)
        return kind(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)

    return made


def token_logps(seed: int) -> Any:
    """A row of token log-probs of each response of a pair, [2, tokens] in float64, 0 after its end; and what is a token."""
    import torch

    chosen, rejected, scale = PAIRS[seed]
    generator = torch.Generator().manual_seed(seed)
    present = torch.arange(max(chosen, rejected)) < torch.tensor([[chosen], [rejected]])
    values = -scale * torch.rand(present.shape, generator=generator, dtype=torch.float64) - 1e-3
    return (values * present).requires_grad_(), present


def ours(section: Optimiser, logps: Any, present: Any, reference: Any) -> Any:
    from eva_hpc.training.losses import LOSSES, PairLogProbs

    sums, lengths, of_reference = logps.sum(1), present.sum(1).double(), reference.sum(1)
    pairs = PairLogProbs(*sums.split(1), *lengths.split(1), *of_reference.split(1))
    return LOSSES[section.loss](pairs, section).loss.mean()


def trl_dpo(trainer: Any, logps: Any, present: Any, reference: Any) -> Any:
    """The loss that TRL's DPO trainer gives to these token log-probs."""
    import torch

    prompts = torch.zeros(2, PROMPT_TOKENS)
    completion_mask = torch.cat([prompts, present], dim=1).long()
    chosen, rejected = reference.sum(1).split(1)

    def model(**inputs: Any) -> Any:
        rows = torch.cat([prompts[:, 1:], logps], dim=1)
        nothing = torch.zeros_like(rows)
        return SimpleNamespace(log_probs=rows, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    inputs = {
        "input_ids": completion_mask,
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    return trainer.compute_loss(model, inputs)


def assert_same(mine: Any, theirs: Any, logps: Any, present: Any, tolerance: float = 1e-6) -> None:
    import torch

    (of_mine,), (of_theirs,) = torch.autograd.grad(mine, logps), torch.autograd.grad(theirs, logps)
    assert mine.item() == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    assert of_mine[present].tolist() == pytest.approx(of_theirs[present].tolist(), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(
    ("section", "settings", "factor"),
    [
        (DPO(), {"loss_type": "sigmoid"}, 1.0),
        (IPO(), {"loss_type": "ipo"}, 1.0),
        (SPPO(win_probability="hard"), {"loss_type": "sppo_hard"}, 0.5),  # TRL adds the two errors, the authors average them
        (RPO(alpha=0.7), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}, 1.0),
    ],
    ids=lambda value: getattr(value, "loss", ""),
)
def test_dpo_ipo_hard_sppo_and_rpo(trainer: Any, section: Any, settings: dict[str, Any], factor: float) -> None:
    from trl import DPOConfig, DPOTrainer

    theirs = trainer(DPOTrainer, DPOConfig, beta=section.beta, precompute_ref_log_probs=True, **settings)
    for seed in range(len(PAIRS)):
        logps, present = token_logps(seed)
        reference = logps.detach().flip(0).roll(1, 1) * present
        assert_same(
            ours(section, logps, present, reference), factor * trl_dpo(theirs, logps, present, reference), logps, present
        )


def test_simpo_and_the_label_smoothing_of_dpo(trainer: Any) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    simpo, smooth = SimPO(), DPO(beta=0.3, label_smoothing=0.2)
    gamma = simpo.gamma_beta_ratio * simpo.beta
    of_simpo = trainer(CPOTrainer, CPOConfig, loss_type="simpo", cpo_alpha=0.0, beta=simpo.beta, simpo_gamma=gamma)
    of_cpo = trainer(CPOTrainer, CPOConfig, loss_type="sigmoid", beta=smooth.beta, label_smoothing=smooth.label_smoothing)
    for seed in range(len(PAIRS)):
        logps, present = token_logps(seed)
        reference = logps.detach().flip(0).roll(1, 1) * present
        averages = logps.sum(1) / present.sum(1)
        assert_same(ours(simpo, logps, present, reference), of_simpo.cpo_loss(*averages.split(1))[0].mean(), logps, present)
        # CPO is DPO without a reference: on log-ratios it is DPO.
        log_ratios = logps.sum(1) - reference.sum(1)
        assert_same(ours(smooth, logps, present, reference), of_cpo.cpo_loss(*log_ratios.split(1))[0].mean(), logps, present)


def test_orpo(trainer: Any) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    section = ORPO()
    theirs = trainer(ORPOTrainer, ORPOConfig, beta=section.weight)
    for seed in range(len(PAIRS)):
        logps, present = token_logps(seed)
        averages = logps.sum(1) / present.sum(1)
        odds_ratio = theirs.odds_ratio_loss(*averages.split(1))[0].mean()
        # TRL computes the odds in single precision; its likelihood term, here the response's own, covers the prompt too.
        assert_same(ours(section, logps, present, logps.detach()), -averages[0] - odds_ratio, logps, present, tolerance=2e-6)

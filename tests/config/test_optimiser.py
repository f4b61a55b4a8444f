from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from eva_hpc.config.optimiser import DPO, SPPO, Lora, Optimiser, needs_reference, needs_win_probabilities
from eva_hpc.stages.train import Spec
from tests.config.conftest import RECIPE, Files


def read(value: Any) -> Optimiser:
    result: Optimiser = TypeAdapter(Optimiser).validate_python(value)
    return result


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        ("dpo", {"beta": 0.05, "learning_rate": 5e-7, "rule": "adamw", "schedule": "cosine", "epochs": 2, "batch_size": 64}),
        (
            "sppo",
            {"beta": 0.001, "learning_rate": 5e-7, "rule": "rmsprop", "schedule": "linear", "epochs": 2, "batch_size": 64},
        ),
        (
            "ipo",
            {
                "beta": 0.6,
                "length_normalised": True,
                "learning_rate": 5e-7,
                "rule": "adamw",
                "schedule": "cosine",
                "epochs": 2,
                "batch_size": 64,
            },
        ),
        ("rpo", {"beta": 0.1, "learning_rate": 5e-7, "rule": "adamw", "epochs": 1, "batch_size": 64, "alpha": 1.0}),
        ("simpo", {"beta": 10.0, "learning_rate": 8e-7, "epochs": 1, "batch_size": 128, "gamma_beta_ratio": 0.5}),
        ("orpo", {"weight": 0.5, "learning_rate": 5e-7, "epochs": 1, "batch_size": 64, "schedule": "cosine"}),
    ],
)
def test_a_loss_given_by_name_has_the_papers_values(loss: str, values: dict[str, Any]) -> None:
    section = read(loss)

    assert section == read({"loss": loss})
    assert section.model_dump().items() >= values.items()
    assert needs_reference(section) == (loss not in ("simpo", "orpo"))
    assert needs_win_probabilities(section) == (loss == "sppo")


def test_hard_win_probabilities_need_none_in_the_pairs() -> None:
    assert not needs_win_probabilities(SPPO(win_probability="hard"))


def test_without_a_loss_it_is_dpo() -> None:
    assert read({"beta": 1.0}) == DPO(beta=1.0)
    assert read({}) == DPO()


def test_dpo_enters_keys_as_it_did_before_there_were_other_losses() -> None:
    assert Spec(optimiser=DPO(), seed=1, round=0).parameters()["optimiser"] == {
        "loss": "dpo",
        "beta": 0.05,
        "learning_rate": 5e-7,
        "epochs": 2,
        "batch_size": 64,
        "warmup_ratio": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_length": 2048,
        "max_prompt_length": 1024,
        "precision": "bf16",
        "gradient_checkpointing": True,
    }


COMMON = (
    "loss, learning_rate, epochs, steps, batch_size, warmup_ratio, schedule, rule, weight_decay, max_grad_norm, max_length, "
    "max_prompt_length, precision, gradient_checkpointing, lora"
)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "\n  loss: dppo",
            "recipe.yaml:8: optimiser.loss: found 'dppo'; must be one of dpo, ipo, sppo, rpo, simpo, orpo; did you mean 'dpo'?",
        ),
        ("\n  loss: 3", "recipe.yaml:8: optimiser.loss: found 3; must be one of dpo, ipo, sppo, rpo, simpo, orpo"),
        (
            " 3",
            "recipe.yaml:7: optimiser: found 3; must be a section with loss: dpo | ipo | sppo | rpo | simpo | orpo; "
            "or dpo, ipo, sppo, rpo, simpo or orpo",
        ),
        (
            " sipmo",
            "recipe.yaml:7: optimiser: found 'sipmo'; must be dpo, ipo, sppo, rpo, simpo or orpo; did you mean 'simpo'?",
        ),
        (
            "\n  gamma_beta_ratio: 0.3",
            f"recipe.yaml:8: optimiser.gamma_beta_ratio: unknown key; allowed: {COMMON}, beta, label_smoothing; "
            "it is a key of loss: simpo",
        ),
        (
            "\n  loss: orpo\n  beta: 0.1",
            f"recipe.yaml:9: optimiser.beta: unknown key; allowed: {COMMON}, weight; "
            "it is a key of loss: dpo | ipo | sppo | rpo | simpo",
        ),
        (
            "\n  loss: dpo\n  label_smoothing: 0.5",
            "recipe.yaml:9: optimiser.label_smoothing: found 0.5; must be a number, at least 0 and below 0.5",
        ),
        (
            "\n  lora: 16",
            "recipe.yaml:8: optimiser.lora: found 16; must be a section with the keys rank, alpha, targets or null",
        ),
        ("\n  lora: {rank: 0}", "recipe.yaml:8: optimiser.lora.rank: found 0; must be an integer, at least 1"),
        (
            "\n  lora: {targets: [all-linear, lm_head]}",
            "recipe.yaml:8: optimiser.lora.targets: found all-linear, lm_head; must be all-linear alone or names of layers",
        ),
        (
            "\n  loss: ipo\n  max_length: 64\n  max_prompt_length: 64",
            "recipe.yaml:10: optimiser.max_prompt_length: found 64; must be below max_length, 64",
        ),
    ],
)
def test_a_mistake_in_the_optimiser(written: str, message: str, files: Files) -> None:
    assert "optimiser:\n  beta: 0.1" in RECIPE

    assert files.recipe_mistakes(RECIPE.replace("optimiser:\n  beta: 0.1", f"optimiser:{written}")) == [message]


def test_a_key_can_be_set_in_a_loss_given_by_name(files: Files) -> None:
    files.write("recipe.yaml", RECIPE.replace("optimiser:\n  beta: 0.1", "optimiser: simpo"))

    assert files.load("recipe.optimiser.gamma_beta_ratio=0.3").recipe.optimiser == read(
        {"loss": "simpo", "gamma_beta_ratio": 0.3}
    )


def test_an_axis_of_losses_gives_each_its_own_values(files: Files) -> None:
    experiment = files.load("sweep.axes={optimiser: [sppo, orpo]}")

    assert [recipe.optimiser for _, recipe in experiment.points] == [read("sppo"), read("orpo")]


def test_lora_enters_keys_only_where_it_is_asked_for() -> None:
    def key(value: Any) -> dict[str, Any]:
        return Spec(optimiser=read(value), seed=1, round=0).parameters()["optimiser"]

    assert key("simpo") == key({"loss": "simpo", "lora": None})
    assert "lora" not in key("simpo")
    assert key({"lora": {}})["lora"] == {"rank": 16, "alpha": 32, "targets": ["all-linear"]}
    assert read({"lora": {"targets": "q_proj"}}) == read({"lora": {"targets": ["q_proj"]}})


def test_an_axis_of_ranks_trains_adapters_of_each(files: Files) -> None:
    experiment = files.load("sweep.axes={optimiser.lora.rank: [8, 64]}")

    assert [recipe.optimiser.lora for _, recipe in experiment.points] == [Lora(rank=8), Lora(rank=64)]

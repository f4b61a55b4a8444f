"""The keys of two small plans, written down: a key that changes makes users pay again for what they have.

A change on purpose (a stage's `version`, a new field of a recipe that decides results) changes these lists too. A new field
that leaves results as they were by default must not.
"""

from __future__ import annotations

from tests.plan.test_judge_calls import CONTENT, judged

LAB_KEYS = {
    "questions/9043d92b67de4b9d1e07",
    "start_policy/e706801b4ec06af66ab4",
    "prompts/7869090501635cb39074",
    "generate/30d765add29991bc75cb.fraction=1.0.responses=6",
    "score/5539f3a969e1e9c4b2bd.fraction=1.0.responses=6",
    "pair/b3c4f20b888fa72e1db4",
    "train/ef712173cae3a27e369e",
    "generate/61de7a65ddff115fe50a.fraction=1.0.responses=4",
    "score/6fd74ac9ae4d8adee95d.fraction=1.0.responses=4",
    "select/730766726ea20a74bde9",
    "evolve/3d10deb4b45e2b0dc067",
    "admit/e4668aceae07da91dbd6",
    "generate/a2752710b38e2dd7d0e1.fraction=0.8.responses=2",
    "score/63bd93a40f34ed13a786.fraction=0.8.responses=2",
    "pair/f531bfcc83963409735c",
    "train/c7a21988b7d60898eff5",
    "answer/2072a193b50fc263affc",
    "judge/8403d21d75703e18f768",
    "answer/4634fb25cad2326c5c72",
    "judge/c13f0244abd237b23129",
    "evaluate/1c0adea60d8645ba149b",
    "select/14e9df875c3b57b35aa3",
    "evolve/28940cd74d4861633b50",
    "admit/c10718c3e9d1337e8a97",
    "generate/361a838582f68dbb471e.fraction=0.8.responses=4",
    "score/232f12ca1cab25846f6d.fraction=0.8.responses=4",
    "pair/b0536d172a5b2af45704",
    "train/c312a6e1d006fff2fa32",
    "answer/e1d191eefc6b15d8de86",
    "judge/2c0a77a2dbccf58e6dd8",
    "evaluate/5a4dfb14474f0596e0e2",
}
FULL_KEYS = {
    "start_policy/0d7092e97a8d498a5171",
    "questions/a865c41d36ae3fbe5a82",
    "prompts/db8f6bcc7a31341c1080",
    "generate/5cd8d2d7a059305b37a1.fraction=1.0.responses=6",
    "score/e179643e4c61a84e9996.fraction=1.0.responses=6",
    "pair/2c15ab50896419635642",
    "train/51e166ee6aca22b082b9",
    "generate/09f64948733539ac223c.fraction=1.0.responses=4",
    "score/0b7bd63cff9ac3c8f90d.fraction=1.0.responses=4",
    "select/aef835bc776f8bee2954",
    "evolve/671001a5e02fac581221",
    "admit/393adeb670aa531804ad",
    "generate/af17f2e33a4306cccd61.fraction=0.8.responses=2",
    "score/157baa76386e1ef3d558.fraction=0.8.responses=2",
    "pair/564b4d1050638777cf1f",
    "train/560890cab356ec8c5d6f",
    "answer/71e2c768a8b9f9b56e0b",
    "judge/a25c72ac3f8679d410c3",
    "answer/b0e98461e507aa1d1bd3",
    "judge/563fa8a1269728cc11f4",
    "evaluate/ee0060fd1f4f489d57c3",
    "select/c6eefe793344d0ac7c87",
    "evolve/7ab9b4c50003c9ec6753",
    "admit/43b1ca87f2ec97fe7279",
    "generate/d52f1d53d8f3351cd4ab.fraction=0.8.responses=4",
    "score/faed00912e0983f81f4b.fraction=0.8.responses=4",
    "pair/5ae7669d909aa7b1378c",
    "train/d37424477d9de2157d63",
    "answer/8eda2bb6c2c2330efd9d",
    "judge/862ec8bf331be4c8ad28",
    "evaluate/a11783220bea1fdbb6c9",
}
JUDGED_KEYS = {
    "judged_questions/d38a9a80012b1ccc3e64",
    "answer/2c438db03c2dcb96ea3e",
    "ask_judge/2019016c2379718f33a8",
    "judged_score/59f127eaa2abfe3639a1",
    "judged_questions/936a2a8fda3a546a9e34",
    "answer/a404637e38e005653333",
    "ask_judge/6c292a64c576f9db136c",
    "judged_score/7489cfc835ca8f8c512c",
}
"""Of AlpacaEval and MT-Bench: the evaluation alone."""


def test_the_keys_of_a_lab_sweep_are_what_they_always_were(plan_of):
    assert plan_of({"responses_per_prompt": [2, 4]}, seeds=(1,)).by_id.keys() == LAB_KEYS


def test_the_keys_of_a_full_sweep_are_what_they_always_were(plan_of, full):
    assert plan_of({"responses_per_prompt": [2, 4]}, seeds=(1,), recipe=full).by_id.keys() == FULL_KEYS


def test_the_keys_of_judged_benchmarks_are_what_they_always_were(plan_of, full):
    content = {**CONTENT, "/models/policy": "p", "/data/prompts.jsonl": "d", "/models/reward": "r"}
    plan = plan_of({"responses_per_prompt": [2]}, (1,), judged(full), content)
    assert {task.id for task in plan.tasks if task.part == "evaluation"} == JUDGED_KEYS

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
    "admit/2d03ced56cc2e95bd6f6",
    "generate/bf513dae0f5d8b4d601f.fraction=0.8.responses=2",
    "score/be15728f297fc7380d27.fraction=0.8.responses=2",
    "pair/af60bc0b15fa7777dd52",
    "train/9e842a5c43bbfeb35a4f",
    "answer/0649a5d7c74cda84015d",
    "judge/059f00baeadc57e34407",
    "answer/4634fb25cad2326c5c72",
    "judge/c13f0244abd237b23129",
    "evaluate/7db0172a31a9a0645cc4",
    "select/14e9df875c3b57b35aa3",
    "evolve/28940cd74d4861633b50",
    "admit/31d59fe34b159732c922",
    "generate/908b1a6bec7e282b0b4a.fraction=0.8.responses=4",
    "score/3d328402db5c385388ae.fraction=0.8.responses=4",
    "pair/05fe0c7d4e8b7e0b6676",
    "train/b62a480dd6f9c20349f0",
    "answer/eb86db6b667e91cd9f5b",
    "judge/9107acb57d1979ddaf4c",
    "evaluate/3f1571145712a72e75c9",
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
    "admit/bdbcff6ca9fc11499119",
    "generate/a35d085ad7e0f1dce805.fraction=0.8.responses=2",
    "score/9512a85fc7f57010b2c7.fraction=0.8.responses=2",
    "pair/ebfa6c2eb710b11d9a56",
    "train/866ab3fb765ee8cc49b1",
    "answer/7003b89239c5d1f5f05a",
    "judge/b412c385ab65e4cd3fd3",
    "answer/b0e98461e507aa1d1bd3",
    "judge/563fa8a1269728cc11f4",
    "evaluate/edaca7cee98be6c83135",
    "select/c6eefe793344d0ac7c87",
    "evolve/7ab9b4c50003c9ec6753",
    "admit/42da84ad6f9a70bd1b06",
    "generate/cfee3dfb32e42c8ad26b.fraction=0.8.responses=4",
    "score/ce19c78dae583862aa3a.fraction=0.8.responses=4",
    "pair/9c0d97ca6e09b1e22de8",
    "train/4b3f86442983966ddfef",
    "answer/9446550db957cc566f28",
    "judge/8a85466ed7592f13457a",
    "evaluate/47b1b5809205ba1aa0e2",
}
JUDGED_KEYS = {
    "judged_questions/d38a9a80012b1ccc3e64",
    "answer/b7b2d78eb1934b4c9cec",
    "ask_judge/596bc91b8895f56bb9ca",
    "judged_score/c90fbf81665ee76aab00",
    "judged_questions/936a2a8fda3a546a9e34",
    "answer/1a7dcfad599743f0f7a3",
    "ask_judge/dd95f0c7dfa504bea260",
    "judged_score/b417d89b35efe75836e3",
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

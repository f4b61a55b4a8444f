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
    "admit/5cbd2e8eb53d432cb30e",
    "generate/e37e8cd084884b5587e4.fraction=0.8.responses=2",
    "score/e35b965c9b9890bd49fe.fraction=0.8.responses=2",
    "pair/acfa730d58f6ecd33040",
    "train/19b46e7863254688032d",
    "answer/59a3e83d57c86d37d67c",
    "judge/b41be0c05261814380f1",
    "answer/4634fb25cad2326c5c72",
    "judge/c13f0244abd237b23129",
    "evaluate/da5e6fdc695cb2759a78",
    "select/14e9df875c3b57b35aa3",
    "evolve/28940cd74d4861633b50",
    "admit/ea9d2d3608f17d26df1d",
    "generate/b9db4e153af285475072.fraction=0.8.responses=4",
    "score/8d719e93eb71d7df2c6b.fraction=0.8.responses=4",
    "pair/3aba07916938991432f8",
    "train/4f1bbce7904589b66b0c",
    "answer/0331f2a4548c3ccc8622",
    "judge/ddfe44ec6647e4d9c6c8",
    "evaluate/6d3bbdcb9e38259ae4c8",
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
    "admit/c1fed0730a932245f143",
    "generate/9c389353c305ca7e78bc.fraction=0.8.responses=2",
    "score/3ba8d9d98254b18cc969.fraction=0.8.responses=2",
    "pair/a776a35c3296aa80d25e",
    "train/d49a9fefdc11e128ed94",
    "answer/7bb2be1ff01e20fdbec5",
    "judge/58f751068a67684a328f",
    "answer/b0e98461e507aa1d1bd3",
    "judge/563fa8a1269728cc11f4",
    "evaluate/8906025d9d50e7672047",
    "select/c6eefe793344d0ac7c87",
    "evolve/7ab9b4c50003c9ec6753",
    "admit/d724b6522d4fe9174a09",
    "generate/9f1ea8e1bf29ee5c3924.fraction=0.8.responses=4",
    "score/c20094ad3b7c629c23d1.fraction=0.8.responses=4",
    "pair/0754c35602733fc0293b",
    "train/a5c810fd414a6a251e3e",
    "answer/7ec1b1e7abd34b4958f1",
    "judge/1fe504a3dad2ca3dfbee",
    "evaluate/079d995ed1149984702c",
}
JUDGED_KEYS = {
    "judged_questions/d38a9a80012b1ccc3e64",
    "answer/e0e51b11953cee5f519b",
    "ask_judge/facccbd23d0aa640ce1d",
    "judged_score/83fdfa6e7aa258977987",
    "judged_questions/936a2a8fda3a546a9e34",
    "answer/623d3fc7b039e0ab45b8",
    "ask_judge/705ffb2d4186ce4a7b77",
    "judged_score/8516fc0505997f1fc7cf",
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

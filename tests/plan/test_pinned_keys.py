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
    "pair/cb45face933fa6cc538d",
    "train/a504171d9f4be33f8503",
    "generate/25d67213c488c1618eb2.fraction=1.0.responses=4",
    "score/b20d95a03ecba0e01dba.fraction=1.0.responses=4",
    "select/9ec0add72b332ca5c440",
    "evolve/c2d4d5be5a1545f249ae",
    "generate/0d0c2ab69f00add48703.fraction=0.8.responses=2",
    "score/09869f826353dbc2dc47.fraction=0.8.responses=2",
    "pair/02a04be9254ee4475367",
    "train/febc6fc5a97cafaee786",
    "answer/11c5c230be22c1c39608",
    "judge/6aeb0053f151089b589a",
    "answer/4634fb25cad2326c5c72",
    "judge/c13f0244abd237b23129",
    "evaluate/15fec9b7fa2008d4d90c",
    "select/effb7f1c64fe3b035d53",
    "evolve/aa66db2cef2d389b1d0c",
    "generate/151b6df017d37b253de6.fraction=0.8.responses=4",
    "score/7a85ca958fc2c9d56ecd.fraction=0.8.responses=4",
    "pair/14664e2e45d84601e38c",
    "train/f757fce6dddb1d780560",
    "answer/b55e4c6f054baac271aa",
    "judge/b43a0cfde736cf833091",
    "evaluate/f8d270854966304446ce",
}
FULL_KEYS = {
    "start_policy/0d7092e97a8d498a5171",
    "questions/a865c41d36ae3fbe5a82",
    "prompts/db8f6bcc7a31341c1080",
    "generate/5cd8d2d7a059305b37a1.fraction=1.0.responses=6",
    "score/e179643e4c61a84e9996.fraction=1.0.responses=6",
    "pair/c2efc84917a83373c548",
    "train/53ff5bcfafc47ad9cf63",
    "generate/e7cf8eac6ecf7d7b7e5e.fraction=1.0.responses=4",
    "score/975b5551786790e638ea.fraction=1.0.responses=4",
    "select/89260a704f64307bdb12",
    "evolve/3548b32049e52ed63d87",
    "generate/c20e45b7bbf3f3fa750d.fraction=0.8.responses=2",
    "score/c69a2f70e272b640b820.fraction=0.8.responses=2",
    "pair/595735405f56249d1ea0",
    "train/0e081ec22ac4c8625420",
    "answer/dc347c58c17fd2ac1a0f",
    "judge/edd5e6641d05f4d09e6c",
    "answer/b0e98461e507aa1d1bd3",
    "judge/563fa8a1269728cc11f4",
    "evaluate/5b68a16a1f41151e1285",
    "select/15e2913cad810ac6f1ad",
    "evolve/60c5f3b6c74218f50b4e",
    "generate/225ebc3d268740bf40d8.fraction=0.8.responses=4",
    "score/9b71ad699ca04d56736c.fraction=0.8.responses=4",
    "pair/c7c1eed7d9c403a99c20",
    "train/b5da68070a8955ac5457",
    "answer/967ba80519d61a7dfbd1",
    "judge/43095d7de5e92e1296b2",
    "evaluate/1d18dc39ecceb9209e0d",
}
JUDGED_KEYS = {
    "judged_questions/d38a9a80012b1ccc3e64",
    "answer/ea923e363efe31333bf5",
    "ask_judge/113f1216a06c10feb2bf",
    "judged_score/f16554504ced49018d30",
    "judged_questions/936a2a8fda3a546a9e34",
    "answer/ac35b0e306226f51d69c",
    "ask_judge/cf1b2836b22027134738",
    "judged_score/8bfe1cda504461a388c8",
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

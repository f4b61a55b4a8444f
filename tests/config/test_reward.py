"""Reward sections: what goes together, where their models are, which of them compare and which ask a server."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from eva_hpc.config.reward import Ensemble, LabChecker, Reward, is_pairwise, model_paths, parts

REWARD = TypeAdapter(Reward)


def test_an_ensemble_is_written_with_short_forms_and_knows_where_its_models_are():
    reward = REWARD.validate_python(
        {"kind": "ensemble", "members": ["lab", {"kind": "armorm"}, "models/rm", {"kind": "openai", "model": "m"}]}
    )

    assert model_paths(reward) == [
        (("reward", "members", 1, "path"), "RLHFlow/ArmoRM-Llama3-8B-v0.1"),
        (("reward", "members", 2, "path"), "models/rm"),
    ]
    assert [(key, part.kind) for key, part in parts(reward)] == [
        (("reward", "members", index), kind)
        for index, kind in enumerate(("lab", "armorm", "sequence_classification", "openai"))
    ]
    assert REWARD.validate_python(reward.model_dump(mode="json")) == reward
    assert REWARD.validate_json(REWARD.dump_json(reward)) == reward


@pytest.mark.parametrize(
    ("section", "pairwise", "paths"),
    [
        ({"kind": "lab"}, False, []),
        ({"kind": "lab", "pairwise": True}, True, []),
        ({"kind": "pairrm"}, True, ["llm-blender/PairRM-hf"]),
        ({"kind": "sequence_classification", "path": "a/b"}, False, ["a/b"]),
        ({"kind": "openai", "model": "m"}, False, []),
        ({"kind": "ensemble", "members": ["lab", {"kind": "openai", "model": "m"}]}, False, []),
    ],
)
def test_what_a_reward_needs_can_be_asked(section, pairwise, paths):
    reward = REWARD.validate_python(section)
    assert (is_pairwise(reward), [path for _, path in model_paths(reward)]) == (pairwise, paths)


VLLM = {"kind": "sequence_classification", "path": "a/b", "engine": "vllm"}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"kind": "ensemble", "members": ["lab"]}, "found 1; must be two or more"),
        ({"kind": "ensemble", "members": ["lab", "a/b"], "weights": [1.0]}, "found 1 for 2 members; must be one for each"),
        ({"kind": "ensemble", "members": ["lab", "a/b"], "weights": [1.0, 0.0]}, "greater than 0"),
        ({"kind": "ensemble", "members": [VLLM, "lab", VLLM]}, r"found engine vllm in members \[0, 2\]"),
        ({"kind": "ensemble", "members": ["lab", {"kind": "lab", "pairwise": True}]}, "found pairwise in member 1"),
        ({"kind": "ensemble", "members": ["lab", {"kind": "pairrm"}]}, "does not match any of the expected tags"),
        ({"kind": "openai", "model": "m", "repeats": 2}, "found 2 at temperature 0; must be 1, or the temperature above 0"),
        ({"kind": "sequence_classification", "path": "a/b", "trust_remote_code": True}, "found true; needs a revision"),
    ],
)
def test_what_cannot_work_is_refused(section, problem):
    with pytest.raises(ValidationError, match=problem):
        REWARD.validate_python(section)


def test_members_can_be_given_as_sections():
    assert Ensemble(members=(LabChecker(), LabChecker(noise=0.5))).weights == ()

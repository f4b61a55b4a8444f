"""Keys depend on what decides an artifact's content, and on nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.store.keys import Identity, containing, digest, identify

NESTED = ("fraction", "responses")
PROMPTS = Identity("prompts", "a" * 20)
SLICES = st.tuples(st.sampled_from([0.2, 0.5, 1.0]), st.integers(2, 10))


def generate(fraction: float, responses: int, seed: int = 1) -> Identity:
    parameters = {"fraction": fraction, "responses": responses, "seed": seed}
    return identify("generate", 1, parameters, {"prompts": PROMPTS}, NESTED)


def score(fraction: float, responses: int, source: Identity) -> Identity:
    return identify("score", 1, {"fraction": fraction, "responses": responses}, {"responses": source}, NESTED)


@given(st.dictionaries(st.text(), st.integers(-(2**60), 2**60) | st.text(), max_size=5))
def test_the_order_of_dict_keys_does_not_change_a_digest(value):
    assert digest(value) == digest(dict(reversed(value.items())))


def test_stage_version_parameters_and_inputs_each_change_the_key():
    base = identify("pair", 1, {"seed": 1}, {"base": PROMPTS})
    others = {
        identify("mix", 1, {"seed": 1}, {"base": PROMPTS}),
        identify("pair", 2, {"seed": 1}, {"base": PROMPTS}),
        identify("pair", 1, {"seed": 2}, {"base": PROMPTS}),
        identify("pair", 1, {"seed": 1}, {"base": Identity("prompts", "b" * 20)}),
        identify("pair", 1, {"seed": 1}, {"evolved": PROMPTS}),
        identify("pair", 1, {"seed": 1}, {}),
    }
    assert len({base.key, *(other.key for other in others)}) == 7


def test_the_order_of_nested_names_and_inputs_does_not_change_an_identity():
    parameters = {"fraction": 1.0, "responses": 4}
    inputs = {"a": PROMPTS, "b": generate(1.0, 4)}
    swapped = dict(reversed(inputs.items()))
    assert identify("x", 1, parameters, inputs, NESTED) == identify("x", 1, parameters, swapped, NESTED[::-1])


@given(SLICES, SLICES)
def test_a_nested_identity_contains_exactly_those_with_no_larger_value(large, small):
    assert generate(*large).contains(generate(*small)) == (large[0] >= small[0] and large[1] >= small[1])


def test_another_seed_or_stage_is_never_contained():
    assert not generate(1.0, 10, seed=1).contains(generate(1.0, 2, seed=2))
    assert not Identity("generate", "f", (("responses", 10),)).contains(Identity("score", "f", (("responses", 2),)))
    assert not Identity("generate", "f", (("responses", 10),)).contains(Identity("generate", "f"))


@given(SLICES)
def test_an_identity_survives_json(values):
    for identity in (generate(*values), PROMPTS):
        assert Identity.from_json(json.loads(json.dumps(identity.to_json()))) == identity
        assert Identity.from_json(json.loads(json.dumps(identity.to_json()))).name == identity.name


@given(SLICES, SLICES)
def test_rewards_of_nested_responses_are_nested_themselves(one, other):
    assert score(*one, generate(*one)).family == score(*other, generate(*other)).family


def test_rewards_of_a_slice_that_differs_from_their_own_are_of_another_family():
    assert score(1.0, 4, generate(1.0, 4)).family != score(1.0, 4, generate(1.0, 6)).family


@given(SLICES, SLICES)
def test_a_consumer_that_is_not_nested_sees_which_slice_it_reads(one, other):
    first, second = (identify("pair", 1, {}, {"responses": generate(*values)}) for values in (one, other))
    assert (first.key == second.key) == (one == other)


def test_names_read_like_the_values_they_stand_for():
    identity = generate(0.8, 10)
    assert identity.name == f"{identity.family}.fraction=0.8.responses=10"
    assert PROMPTS.name == PROMPTS.key == PROMPTS.family
    assert identity.key not in (identity.family, generate(0.8, 9).key)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]*", fullmatch=True), st.integers(0, 10**9) | st.floats(0, 1), max_size=3))
def test_the_name_of_a_folder_says_which_artifact_it_is(nested):
    identity = Identity("generate", "ab12" * 5, tuple(sorted(nested.items())))
    assert Identity.from_name("generate", identity.name) == identity


@pytest.mark.parametrize("name", ["ab12.a", "ab12.a=", "ab12.a=x", "ab12.a=0.50", "ab12.a=1.0."])
def test_a_name_that_no_artifact_has_is_refused(name):
    with pytest.raises(ValueError):  # noqa: PT011
        Identity.from_name("generate", name)


def test_of_several_that_contain_it_the_smallest_comes_first_and_foreign_names_are_passed_over():
    held = [generate(*values).name for values in ((1.0, 10), (0.5, 6), (1.0, 9), (1.0, 4))]
    asked = generate(0.5, 6)
    assert containing(asked, [*held, f"{asked.family}.partial", "corrupt-1-ab"]) == [
        generate(0.5, 6), generate(1.0, 9), generate(1.0, 10),
    ]  # fmt: skip


def test_a_salt_makes_another_artifact_and_none_is_no_salt():
    plain, empty, *salted = (identify("mix", 1, {"seed": 1}, {}, salt=salt) for salt in ("", "", "a", "b"))
    assert plain == empty == identify("mix", 1, {"seed": 1}, {})
    assert len({plain, *salted}) == 3

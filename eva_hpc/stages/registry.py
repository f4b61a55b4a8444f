"""All stages by name. A new stage is one module plus one line here."""

from __future__ import annotations

from types import ModuleType

from eva_hpc.stages import (
    admit,
    adopt,
    answer,
    ask_judge,
    evaluate,
    evolve,
    generate,
    judge,
    judged_questions,
    judged_score,
    mix,
    pair,
    prompts,
    questions,
    recheck,
    response_logps,
    rewrite,
    score,
    select,
    start_policy,
    train,
)

STAGES: dict[str, ModuleType] = {
    module.Spec.stage: module
    for module in (
        start_policy,
        prompts,
        generate,
        score,
        response_logps,
        select,
        evolve,
        admit,
        recheck,
        mix,
        pair,
        rewrite,
        adopt,
        train,
        questions,
        answer,
        judge,
        evaluate,
        judged_questions,
        ask_judge,
        judged_score,
    )
}

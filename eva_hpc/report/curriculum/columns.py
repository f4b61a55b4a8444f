"""What every column of the curriculum's files means; the files carry it along."""

from __future__ import annotations

OF_A_PROMPT: dict[str, str] = {
    "words": "words of the prompt: runs of letters and digits; of Chinese or Japanese look at the characters",
    "characters": "characters of the prompt",
    "sentences": "pieces between full stops, question and exclamation marks and line breaks; proxy of complexity",
    "clauses": "pieces between these, colons, semicolons and English conjunctions: about how many things are asked; proxy",
    "constraints": "English expressions that limit the answer (must, at least, without, each, …); proxy of complexity",
    "list_items": "lines that begin with a bullet, or a number or letter and a full stop or bracket; proxy of complexity",
    "numbers": "numbers in digits; proxy of complexity",
    "prompt_tokens": "tokens of the prompt in the policy's chat template",
    "response_tokens": "mean tokens of its first k responses",
    "steps": "operations of a lab task: exact complexity",
    "content_length": "letters or numbers of a lab task's content: exact complexity",
    "sensible": "whether it can be read as a lab task that is worth asking; in a summary their share: quality in the lab",
    "judged_complexity": "complexity from 1 to 10 by the judge, of a seeded sample of prompts",
    "judged_quality": "quality from 1 to 10 by the judge, of the same sample",
    "reward_mean": "mean reward of the first k responses",
    "reward_best": "their best reward",
    "reward_worst": "their worst reward",
    "reward_gap": "best minus worst reward",
    "rewards_missing": "responses to which the reward model gave no number; they are not used",
    "depth": "evolutions between the prompt and its human or drawn ancestor",
    "informativeness_*": "by each metric of rewards (method/informativeness.py); inverse ones are scaled over the set",
}
"""Measures of a prompt; a summary has their means over the prompts that have them."""

OF_A_PROMPT_ONLY: dict[str, str] = {
    "id, prompt, source, parent, operator, made_in_round": "the prompt with its lineage; parent is the id it was evolved from",
    "in_round": "whether the round trains on it; of the evolved prompts only these have responses and rewards",
    "topic": "its cluster by k-means over all prompts of the run; a number without meaning of its own",
    "creator_informativeness, creator_weight, selected": "of base prompts: the creator's own metric, its sampling weight, and "
    "whether it was evolved",
}

OF_A_SET: dict[str, str] = {
    "n": "prompts of the set: base prompts of the round, or all evolved ones that were admitted",
    "n_in_round": "those that the round trains on",
    "n_rewarded": "those with at least one reward",
    "n_judged": "those that the judge rated",
    "diversity": "1 - mean cosine similarity over all pairs of prompts",
    "distinct_1": "different words over all words; every set of a run is cut to the same number of words",
    "distinct_2": "the same of pairs of neighbouring words",
    "centroid_shift": "1 - cosine between the mean vectors of the evolved and the base prompts of the round",
    "topic_divergence": "Jensen-Shannon divergence in bits between the topics of the two",
    "topic_divergence_by_chance": "its mean when the same prompts are dealt to the two sets at random: near it is no shift",
    "centroid_shift_from_start": "centroid_shift from the first base prompts of the run",
    "topic_divergence_from_start": "topic_divergence from the first base prompts of the run",
}
"""Measures of a whole set."""

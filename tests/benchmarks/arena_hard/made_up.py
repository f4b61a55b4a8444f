"""Made-up rows in both official layouts, and official-looking judge files."""

from __future__ import annotations

import json

LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
SYSTEM = "Say which answer is better: [[A>>B]] … [[B>>A]]."
V01_CONFIG = f"""\
judge_model: some-judge
baseline_model: base
temperature: 0
max_tokens: 4096
regex_pattern: \\[\\[([AB<>=]+)\\]\\]
number_of_judgment_attempts: 2
system_prompt: "{SYSTEM}"
prompt_template: ["Prompt: {{question_1}}\\nA: {{answer_1}}\\nB: {{answer_2}}"]
"""
V2_CONFIG = """\
judge_model: some-judge
temperature: 0.0
max_tokens: 16000
regex_patterns:
  - \\[\\[([AB<>=]+)\\]\\]
  - \\[([AB<>=]+)\\]
prompt_template: "Prompt: {QUESTION}\\nA: {ANSWER_A}\\nB: {ANSWER_B}"
"""
V2_SETTINGS = """\
import os
SHARED = "Judge the answers."
JUDGE_SETTINGS = {
    "hard_prompt": {"baseline": "o3-mini-2025-01-31", "system_prompt": SHARED},
    "creative_writing": {"baseline": "gemini-2.0-flash-001", "system_prompt": "Judge the writing."},
}
os.environ["NEVER_EXECUTED"] = "1"
"""


def v01_row(question, scores, model="m", **more):
    """A v0.1 judgment row; a score of None has a text without a label."""
    games = [{"user_prompt": "…", "judgment": f"\nso [[{s}]]" if s else "\nwho knows", "score": s} for s in scores]
    return {"question_id": question, "model": model, "judge": "j", "games": games, **more}


def v2_row(question, scores, model="m", category="hard_prompt", **more):
    """A v2.0 judgment row; "lost" is a game that the judge's server did not answer."""
    games = [
        None if s == "lost" else {"score": s, "judgment": {"answer": f"[[{s}]]" if s else "?"}, "prompt": []} for s in scores
    ]
    return {"uid": question, "category": category, "judge": "j", "model": model, "games": games, **more}


def write(path, rows):
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

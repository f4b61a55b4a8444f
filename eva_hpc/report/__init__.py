"""From metric rows to statistics, and from those to LaTeX, Markdown, CSV and the terminal.

The command line and the last step of a sweep call it; it reads what the store holds and never asks Slurm.
It may import `config` and `store`; `tabulate` and `rich` only where a table is rendered, and nothing heavy. The curriculum
also imports `plan`, `stages`, `method`, `lab` and the judging of benchmarks; numpy, scikit-learn and matplotlib where it
computes.
"""

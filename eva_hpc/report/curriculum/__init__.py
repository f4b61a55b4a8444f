"""The curriculum of a sweep: what base and evolved prompts are like, round by round, as data files and figures.

`eva-hpc curriculum` calls it; it reads the plan and what the store holds, and asks a judge only when told to. It may import
`plan`, `stages`, `method`, `lab`, `store` and the judging half of `benchmarks`; scikit-learn, SciPy, sentence-transformers and
matplotlib only inside the functions that need them.
"""

"""Checks of a site before the first submission: what is found, what it means, what to do.

`examine` asks Slurm once (facts.py), judges the answers (controller.py, partitions.py, limits.py), runs small probe jobs
(probing.py, answers.py) and looks at this machine (here.py). Checks are functions from facts to findings; nothing here prints.
`eva_hpc.commands` calls it. It may import all of `cluster`, `config` and `plan`.
"""

from eva_hpc.cluster.doctor.examine import Examination, examine
from eva_hpc.cluster.doctor.finding import Finding, Level

__all__ = ["Examination", "Finding", "Level", "examine"]

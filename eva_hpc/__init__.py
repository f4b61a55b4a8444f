"""eva_hpc: ablations of eva (evolving alignment via asymmetric self-play) on Slurm clusters."""

__version__ = "0.5.0"

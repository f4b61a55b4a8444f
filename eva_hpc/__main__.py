"""``python -m eva_hpc``: the same as ``eva-hpc``."""

from eva_hpc.cli import main

main()

"""From an experiment to work: grid -> runs -> stage graph -> shared work -> jobs.

Pure: it touches no files, no Slurm and no torch. The command line and the cluster room call it; it reads stage specs and
config.
"""

"""The commands of ``eva-hpc``, one file each; `eva_hpc.cli` registers them and nobody else calls them.

They read what the user asked for, call the rooms that do the work, and print; heavy imports wait until a command runs.
"""

"""The stages of a run: each reads inputs, calls a domain room, writes outputs and reports progress.

The planner reads their specs and the cluster room runs them, through :mod:`eva_hpc.stages.registry`. A module here is light to
import: heavy rooms (inference, training, lab's policy) are imported inside `run`.
"""

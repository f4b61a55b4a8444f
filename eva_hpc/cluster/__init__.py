"""Execution: the local pool of workers and Slurm, the ledger of attempts, states, rendezvous and signals.

The command line calls it with a plan; stages run inside its workers. It knows no stage by name.
"""

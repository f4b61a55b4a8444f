"""Everything that runs a model to read or write text: sampling engines, reward models, a client for remote servers.

Stages and benchmarks call it, through the protocols of :mod:`~eva_hpc.inference.engine` and `reward_models`.
It imports `config` and `store`; torch, transformers, vLLM and httpx load only when an engine or a client is opened.
"""

"""Preference optimisation: losses, batches, reference log-probs and the DeepSpeed ZeRO-3 trainer with checkpoints.

Stages call :func:`eva_hpc.training.trainer.train` inside :func:`eva_hpc.training.distributed.distributed`; nobody else does.
It may import `store` and `config`; its modules import torch, transformers and DeepSpeed at the top, so import them lazily.
"""

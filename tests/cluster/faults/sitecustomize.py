"""Makes a stage fail on demand inside real jobs: Python imports this at its start where the folder is on PYTHONPATH.

EVA_HPC_TEST_FAULT is JSON: {"stage": "train", "kind": "killed", "rank": 1, "once": "/tmp/x/happened"}. With `once`, a file that
is made when it happens, it does not happen again.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time

FAULT = json.loads(os.environ.get("EVA_HPC_TEST_FAULT", "{}"))


def cuda_oom(context):
    import torch

    if context.engine.micro_batch_tokens > FAULT["above"]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def host_oom(context):
    raise MemoryError("Cannot allocate memory")


def hungry(context):
    """Holds so many MB more than the stage itself, long enough to be noticed."""
    globals()["eaten"] = bytearray(FAULT["mb"] * 2**20)
    time.sleep(3)


def killed(context):
    os.kill(os.getpid(), 9)


def mistake(context):
    raise KeyError("no such column")


def hung(context):
    time.sleep(1e6)


def stuck(context):
    """Saves nothing, however long it runs, but leaves when told to, as a stage without checkpoints does."""
    while True:
        time.sleep(0.1)
        context.check_stop()


def disk_full(context):
    raise OSError(28, "No space left on device")


def wrapped(run):
    def faulty(spec, inputs, out, context):
        happened = FAULT.get("once")
        if context.rank == FAULT.get("rank", 0) and not (happened and os.path.exists(happened)):
            if happened:
                open(happened, "x").close()
            globals()[FAULT["kind"]](context)
        return run(spec, inputs, out, context)

    return faulty


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != f"eva_hpc.stages.{FAULT['stage']}":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.run = wrapped(module.run)

        spec.loader.exec_module = exec_module
        return spec


if FAULT:
    sys.meta_path.insert(0, Finder())

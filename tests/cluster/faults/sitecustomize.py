"""Makes a stage fail on demand inside real jobs: Python imports this at its start where the folder is on PYTHONPATH.

EVA_HPC_TEST_FAULT is JSON: {"stage": "train", "kind": "killed", "rank": 1, "once": "/tmp/x/happened"}. With `once`, a file that
is made when it happens, it does not happen again. With "rank": "all" it happens on every rank.
With "instead": true that is all the stage does.
With "from": FILE the rest is read from that file each time, so that a process that stays can be told something else.
"""

import importlib
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


def host_killed(context):
    """What the rank was forked from is killed."""
    os.kill(os.getppid(), 9)
    time.sleep(1e6)


def left_behind(context):
    """Leaves a process in a session of its own."""
    import subprocess

    subprocess.Popen(["sleep", FAULT["seconds"]], start_new_session=True)


def tells(context):
    """Says who it is, in a file of FAULT["folder"] for each rank."""
    import torch

    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MASTER_ADDR", "MASTER_PORT", "TORCH_EXTENSIONS_DIR"]
    names += ["SLURM_STEP_ID", "EVA_HPC_RUN"]
    told = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "node": os.environ.get("SLURMD_NODENAME"),
        "world_size": context.world_size,
        "local_rank": context.local_rank,
        "threads": torch.get_num_threads(),
        "environment": {name: os.environ.get(name) for name in names},
    }
    stage = FAULT["stage"] if FAULT["stage"] != "*" else context.work.parent.parent.name
    with open(f"{FAULT['folder']}/{stage}-{context.rank}-{time.time_ns()}.json", "x") as file:
        json.dump(told, file)


def lingers(context):
    """What the stage does is there, but it does not end before FAULT["until"] is there."""
    for _ in range(600):
        if os.path.exists(FAULT["until"]):
            return
        time.sleep(0.1)
    raise TimeoutError(FAULT["until"])


def wrapped(run):
    def faulty(spec, inputs, out, context):
        if "from" in FAULT:
            with open(FAULT["from"]) as file:
                FAULT.update(json.load(file))
        happened = FAULT.get("once")
        done = run(spec, inputs, out, context) if FAULT["kind"] == "lingers" else None
        if FAULT.get("rank", 0) in (context.rank, "all") and not (happened and os.path.exists(happened)):
            if happened:
                open(happened, "x").close()
            globals()[FAULT["kind"]](context)
        if done is not None:
            return done
        if FAULT.get("instead"):
            return importlib.import_module("eva_hpc.stages.contract").Counts(0, 0)
        return run(spec, inputs, out, context)

    return faulty


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if FAULT["stage"] == "no hosts" and name == "eva_hpc.cluster.warm":
            raise ImportError("the hosts are out of order")
        if name != f"eva_hpc.stages.{FAULT['stage']}" and not (FAULT["stage"] == "*" and name.startswith("eva_hpc.stages.")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            if hasattr(module, "Spec") and hasattr(module, "run"):
                module.run = wrapped(module.run)

        spec.loader.exec_module = exec_module
        return spec


if FAULT:
    sys.meta_path.insert(0, Finder())

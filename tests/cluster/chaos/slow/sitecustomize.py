"""Makes stages slow inside real jobs, so that they can be hit, and keeps a diary of what they did.

Python imports this at its start where the folder is on PYTHONPATH. EVA_HPC_TEST_SLOW is JSON:
{"seconds": {"generate": 0.5, "train": 0.2}, "diary": "/tmp/x/diary"}: the seconds a stage pauses after each chunk or step.

DIARY/PID.jsonl     {"stage": "train", "rank": 0, "what": "step", "value": 17, "time": 1790000000.0}
                    {"stage": "score", "rank": 1, "what": "5f0c…/chunk-000004-000008.jsonl", "value": 4, "time": 1790000000.0}
"""

import dataclasses
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time

SLOW = json.loads(os.environ.get("EVA_HPC_TEST_SLOW", "{}"))


def note(context, stage, what, value):
    line = {"stage": stage, "rank": context.rank, "what": what, "value": value, "time": time.time()}
    handle = os.open(f"{SLOW['diary']}/{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, json.dumps(line).encode() + b"\n")
    os.close(handle)


def wrapped(module):
    run, stage = module.run, module.Spec.stage
    in_chunks = hasattr(module, "finish")  # chunks that are there already are told as progress too: they cost nothing

    def slow(spec, inputs, out, context):
        from eva_hpc.stages import chunks

        write = chunks.write_jsonl

        def write_and_note(path, records):
            count = write(path, records)
            note(context, stage, f"{out.name}/{path.name}", count)
            time.sleep(SLOW["seconds"].get(stage, 0))
            return count

        def progress(done, total):
            context.progress(done, total)
            note(context, stage, "step", done)
            time.sleep(0 if in_chunks else SLOW["seconds"].get(stage, 0))

        chunks.write_jsonl = write_and_note
        try:
            return run(spec, inputs, out, dataclasses.replace(context, progress=progress))
        finally:
            chunks.write_jsonl = write

    return slow


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if not name.startswith("eva_hpc.stages."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            if hasattr(module, "Spec") and hasattr(module, "run"):
                module.run = wrapped(module)

        spec.loader.exec_module = exec_module
        return spec


if SLOW:
    sys.meta_path.insert(0, Finder())

"""What the warm server, and in jobs the host on every node, imports once, so that every stage forked from it starts at once.

Importing torch, transformers and DeepSpeed takes seconds; a fork of a process that has them takes milliseconds.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from eva_hpc.cluster import worker  # noqa: F401

with contextlib.suppress(ImportError):
    # Training first: it tells DeepSpeed which accelerator to use before anything else imports DeepSpeed.
    from eva_hpc.training import distributed, trainer  # noqa: F401, I001
    from eva_hpc.inference import transformers_engine  # noqa: F401
    from eva_hpc.lab import policy  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401, what it imports is left until somebody names it

# A fork that collects garbage would walk, and so copy, everything imported here.
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)

"""The embedded world: text tasks with exact answers, checker, rewriter, demonstrations, and the tiny policy that imitates them.

The stages and the lab's benchmark call it.
It may import `store`'s seeds, and only its policy and tokenizer modules import torch, transformers and tokenizers.
"""

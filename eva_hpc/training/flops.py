"""Floating-point operations of a forward pass, counted as those of its matrix products: 2 m n k for [m, k] x [k, n].

The backward pass has twice as many. Those of the forward pass that gradient checkpointing repeats are not counted, as usual for
the model FLOPs utilisation (MFU; PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from eva_hpc.training.packing import Tree


@dataclass(frozen=True)
class Flops:
    """What a token costs.

    Attributes:
        body: per token, in the layers' weights.
        head: per token of a completion, in the projection to the vocabulary.
        attention: per pair of a token and one that it sees, over all layers with full attention.
        windowed: the same over all layers with a sliding window.
        window: that window, in tokens.
    """

    body: float
    head: float
    attention: float
    windowed: float
    window: int

    @classmethod
    def of(cls, policy: PreTrainedModel) -> Flops | None:
        """Those of a model, whose weights may be in shards; None for a mixture of experts, where they depend on the text."""
        config = policy.config.get_text_config()
        if any("experts" in name for name, _ in policy.named_parameters()):
            return None
        ends = {id(module.weight) for module in (policy.get_input_embeddings(), policy.get_output_embeddings())}
        shapes = [getattr(p, "ds_shape", p.shape) for p in policy.parameters() if id(p) not in ends]
        body = sum(shape.numel() for shape in shapes if len(shape) == 2)
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        window = getattr(config, "sliding_window", None) or 0
        kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
        kinds = kinds if len(kinds) > 1 else kinds * config.num_hidden_layers
        per_layer = 4.0 * config.num_attention_heads * head_size  # scores and weighted values
        windowed = sum(kind == "sliding_attention" for kind in kinds) if window else 0
        return cls(
            body=2.0 * body,
            head=2.0 * config.vocab_size * config.hidden_size,
            attention=per_layer * (len(kinds) - windowed),
            windowed=per_layer * windowed,
            window=window,
        )

    def forward(self, tree: Tree) -> float:
        """Those of a forward pass over a tree."""
        prompt = len(tree.prompt)
        texts = [prompt + len(completion) for completion in tree.completions]
        shared = len(texts) - 1
        seen, seen_windowed = (
            sum(_seen(text, window) for text in texts) - shared * _seen(prompt, window) for window in (None, self.window)
        )
        completions = tree.size - prompt
        return self.body * tree.size + self.head * completions + self.attention * seen + self.windowed * seen_windowed


def _seen(length: int, window: int | None) -> float:
    """Pairs of a token and one that it sees, itself included, in a text of `length` tokens; `window` 0 or None is no window."""
    if not window or length <= window:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window

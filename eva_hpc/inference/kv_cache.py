"""A key-value cache that is allocated once per batch and written in place.

The caches of transformers grow by concatenation: every step copies everything seen so far, which for a small model costs
as much as the model itself. Here a step writes one column, and attention reads a view.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer: buffers of [rows, heads, capacity, head_dim], of which `length` columns are filled.

    With a sliding `window`, attention is shown only the last `window` columns once single tokens are added; the prompt itself
    must come in one piece, under the model's own mask.
    """

    is_croppable = False

    def __init__(self, capacity: int, window: int | None) -> None:
        super().__init__()
        self.capacity = capacity
        self.window = window
        self.is_sliding = window is not None
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers in the shape and type of the first states."""
        self.keys = _buffer(key_states, self.capacity)
        self.values = _buffer(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states of [rows, heads, new, head_dim]; returns views of what attention may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        start = self.length
        self.length += new
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        first = self.first_visible() if new == 1 else 0
        return self.keys[:, :, first : self.length], self.values[:, :, first : self.length]

    def first_visible(self) -> int:
        """Index of the first column that the newest token attends to."""
        return max(0, self.length - self.window) if self.window is not None else 0

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows, in this order; an index may occur several times."""
        shape = (len(indices), *self.keys.shape[1:])
        keys, values = self.keys.new_empty(shape), self.values.new_empty(shape)
        torch.index_select(self.keys[:, :, : self.length], 0, indices, out=keys[:, :, : self.length])
        torch.index_select(self.values[:, :, : self.length], 0, indices, out=values[:, :, : self.length])
        self.keys, self.values = keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, for the mask of the prompt."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Number of filled columns."""
        return self.length

    def get_max_length(self) -> int:
        """Number of columns there are."""
        return self.capacity


def preallocated_cache(config: Any, capacity: int) -> Cache:
    """A cache of `capacity` columns for a model of this config.

    Raises:
        ValueError: a layer is neither full nor sliding-window attention, e.g. a state-space layer.
    """
    layers: list[CacheLayerMixin] = []
    chunked = "chunked_attention" in (getattr(config.get_text_config(decoder=True), "layer_types", None) or ())
    for layer in DynamicCache(config=config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or chunked:
            raise ValueError(
                f"the transformers engine samples from models of full and sliding-window attention; {config.model_type} has "
                f"other layers ({type(layer).__name__}): use the vllm engine"
            )
        layers.append(PreallocatedLayer(capacity, getattr(layer, "sliding_window", None)))
    return Cache(layers=layers)


def _buffer(states: torch.Tensor, capacity: int) -> torch.Tensor:
    rows, heads, _, head_dim = states.shape
    return states.new_empty((rows, heads, capacity, head_dim))

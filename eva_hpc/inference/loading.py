"""How a model is loaded so that inference computes what the model was trained to compute."""

from __future__ import annotations

from typing import Any

from eva_hpc.inference.engine import ModelSource


def load_config(model: ModelSource) -> Any:
    """The model's transformers config.

    Raises:
        OSError: the model is not there.
    """
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code)


def attention_implementation(config: Any, wanted: str) -> str | None:
    """The attention to ask transformers for; None lets it take sdpa where the architecture has it.

    Soft-capped attention (Gemma 2) must be eager: sdpa silently leaves the cap out. Flash attention becomes sdpa, since it
    gains nothing for the single queries of sampling.
    """
    if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None:
        return "eager"
    return "eager" if wanted == "eager" else None

"""Tiny random models with a real tokenizer and chat template, saved where a test wants them.

A conversation is rendered as ``<|bos|><|turn|>user\\nHello<|end|>\\n<|turn|>assistant\\nHi<|end|>\\n``. A response stops at
``<|end|>`` (named by the generation config) or at ``<|eos|>`` (named by the tokenizer).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

Family = Literal["qwen2", "gemma2", "llama"]

# transformers loads every tokenizer beside a Qwen2 config as a Qwen2Tokenizer, whose unknown token is <|endoftext|>.
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|turn|>", "<|end|>", "<|endoftext|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
CORPUS = (
    "A prompt asks for something and a response answers it; the reward says how well.",
    "Sort these words, then reverse the list: stone, river, cloud, lantern, harbour.",
    "How many vowels are in the word window? There are two of them.",
    "Write a short letter to a friend about the first snow of the winter.",
    "The user asked twice, the assistant answered once, and the judge preferred the longer answer.",
    "Count from one to ten, skip every third number, and add up what is left: 1 2 4 5 7 8 10.",
    "Explain why the sky is blue to a child of six years in three sentences.",
    "Ünïcode is hard: naïve café, 日本語, and a smile 🙂 need several bytes each.",
)


def tiny_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most 400 tokens, trained on a few sentences here and saved to `path`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        additional_special_tokens=["<|turn|>", "<|end|>", "<|endoftext|>"],
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(path)
    return tokenizer


def tiny_policy(path: Path, family: Family) -> Path:
    """A random causal language model of two layers with its tokenizer and generation config; returns `path`.

    The weights are drawn wide, so that the distributions are far from uniform and greedy answers vary.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = tiny_tokenizer(path)
    config = _config(family, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=[end, tokenizer.eos_token_id]
    )
    model.save_pretrained(path)
    return path


def tiny_reward_model(path: Path, family: Family) -> Path:
    """A random sequence-classification model of one logit with its tokenizer; returns `path`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = _config(family, tiny_tokenizer(path))
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.save_pretrained(path)
    return path


def _config(family: Family, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Hidden 64, two layers, two heads of 32 sharing one key-value head, at most 512 positions."""
    from transformers import AutoConfig

    special = {
        # A wide tied embedding, scaled up by Gemma, would only ever repeat its own input.
        "gemma2": {
            "sliding_window": 8,
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 5.0,
            "initializer_range": 0.1,
        },
        "llama": {"initializer_range": 0.25},
        "qwen2": {"initializer_range": 0.25},
    }
    return AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **special[family],
    )

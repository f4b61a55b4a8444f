"""Tiny random reward models as their authors published them: checkpoints by parameter name, tokenizers with their marks.

Each has its formula beside it, for one sequence without any padding, written from the papers and not from the code under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import CORPUS

GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PAIRRM_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
OBJECTIVES = 5


def random_weights(names: dict[str, tuple[int, ...]], seed: int, scale: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in names.items()}


# ---------------------------------------------------------------------------- ArmoRM


def tiny_armorm(path: Path) -> Path:
    """Llama of two layers with a regression layer to 5 objectives and a gating network of two hidden layers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=special[0], eos_token=special[4], chat_template=LLAMA3_TEMPLATE
    )
    tokenizer.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.3,
        bos_token_id=0, eos_token_id=4, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        backbone = LlamaModel(config)
    heads = random_weights(
        {
            "regression_layer.weight": (OBJECTIVES, 32),
            "reward_transform_matrix": (OBJECTIVES, OBJECTIVES),
            "gating.logit_scale": (1,),
            "gating.layers.0.weight": (24, 32),
            "gating.layers.0.bias": (24,),
            "gating.layers.1.weight": (24, 24),
            "gating.layers.1.bias": (24,),
            "gating.layers.2.weight": (OBJECTIVES, 24),
            "gating.layers.2.bias": (OBJECTIVES,),
        },
        seed=4,
        scale=0.3,
    )
    weights = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()}
    save_file(weights | heads, path / "model.safetensors", metadata={"format": "pt"})
    gating = {"num_objectives": OBJECTIVES, "gating_temperature": 0.7, "gating_hidden_dim": 24, "gating_n_hidden": 2}
    published = {"architectures": ["LlamaForRewardModelWithGating"], "num_labels": 1, "torch_dtype": "float32"}
    (path / "config.json").write_text(json.dumps({**config.to_dict(), **published, **gating}))
    return path


def armorm_formula(path: Path, tokens: list[int], gate: int) -> float:
    """The score of one conversation; the gating network reads the hidden state at `gate`."""
    from transformers import LlamaConfig, LlamaModel

    weights = load_file(path / "model.safetensors")
    backbone = LlamaModel._from_config(LlamaConfig.from_pretrained(path), attn_implementation="eager").eval()
    backbone.load_state_dict({name.removeprefix("model."): w for name, w in weights.items() if name.startswith("model.")})
    with torch.no_grad():
        hidden = backbone(torch.tensor([tokens])).last_hidden_state[0].double()
    w = {name: tensor.double() for name, tensor in weights.items()}
    objectives = w["regression_layer.weight"] @ hidden[-1]
    gating = hidden[gate]
    for layer in (0, 1):
        gating = torch.clamp(w[f"gating.layers.{layer}.weight"] @ gating + w[f"gating.layers.{layer}.bias"], min=0)
    gating = torch.exp((w["gating.layers.2.weight"] @ gating + w["gating.layers.2.bias"]) / 0.7)
    coefficients = w["gating.logit_scale"] * gating / gating.sum()
    return float(sum(coefficients[n] * (objectives @ w["reward_transform_matrix"][:, n]) for n in range(OBJECTIVES)))


# ---------------------------------------------------------------------------- PairRM


def tiny_pairrm(path: Path) -> Path:
    """DeBERTa of two layers with a head of three tasks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2Tokenizer

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trained.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="[UNK]", show_progress=False)
    )
    vocabulary = json.loads(trained.to_str())["model"]["vocab"]
    tokenizer = DebertaV2Tokenizer(vocab=[(piece, score) for piece, score in vocabulary], unk_id=3)
    tokenizer.add_tokens(list(PAIRRM_MARKS), special_tokens=True)
    tokenizer.save_pretrained(path)
    ids = tokenizer.convert_tokens_to_ids(list(PAIRRM_MARKS))
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, relative_attention=True, position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        backbone = DebertaV2Model(config)
    heads = {
        "head_layer.1.weight": (32, 64),
        "head_layer.1.bias": (32,),
        "head_layer.4.weight": (3, 32),
        "head_layer.4.bias": (3,),
    }
    weights = {f"pretrained_model.{name}": tensor for name, tensor in backbone.state_dict().items()}
    save_file(weights | random_weights(heads, seed=6, scale=1.0), path / "model.safetensors", metadata={"format": "pt"})
    published = {
        "architectures": ["DebertaV2PairRM"], "n_tasks": 3, "drop_out": 0.05, "source_prefix_id": ids[0],
        "cand1_prefix_id": ids[1], "cand2_prefix_id": ids[2], "cand_prefix_id": ids[3],
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps({**config.to_dict(), **published}))
    return path


def pairrm_formula(path: Path, prompt: str, first: str, second: str, lengths: tuple[int, int] = (1224, 412)) -> float:
    """The logit of "the first response is better"; texts are cut as on the model's card."""
    from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    weights = load_file(path / "model.safetensors")
    config = DebertaV2Config.from_pretrained(path)
    backbone = DebertaV2Model(config).eval()
    prefix = "pretrained_model."
    backbone.load_state_dict({name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)})
    tokens = tokenizer.encode(PAIRRM_MARKS[0] + prompt, max_length=lengths[0], truncation=True)
    room = (lengths[0] + 2 * lengths[1] - len(tokens)) // 2
    places = [1]  # a mark follows its [CLS]; the same words in a text are only words
    for mark, text in zip(PAIRRM_MARKS[1:], (first, second), strict=False):
        places.append(len(tokens) + 1)
        tokens = tokens + tokenizer.encode(mark + text, max_length=room, truncation=True)
    with torch.no_grad():
        hidden = backbone(torch.tensor([tokens])).last_hidden_state[0].double()
    w = {name: tensor.double() for name, tensor in weights.items()}
    source, one, other = (hidden[place] for place in places)

    def score(candidate: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(w["head_layer.1.weight"] @ torch.cat([source, candidate]) + w["head_layer.1.bias"])
        return w["head_layer.4.weight"] @ inner + w["head_layer.4.bias"]

    return float((score(one) - score(other)).mean())

"""A model's tokenizer as a chat partner: conversation to tokens, tokens to text, and the tokens that end a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eva_hpc.inference.engine import Message, ModelSource
from eva_hpc.store.records import Response


class ChatTokenizer:
    """The tokenizer of a model. Both engines read and write text through it, so their records agree to the letter."""

    def __init__(self, model: ModelSource) -> None:
        """Load the tokenizer of `model`.

        Raises:
            OSError: there is no tokenizer at that path.
        """
        from transformers import AutoTokenizer

        self._path = model.path
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation in the tokenizer's chat template. The template alone decides about a leading BOS.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses the conversation.
        """
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise ValueError(f"the tokenizer of {self._path} has no chat template: use an instruction-tuned model")
        try:
            tokens = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(f"the chat template of {self._path} refuses the roles [{roles}]: {error}") from error
        return list(tokens)

    def stop_tokens(self, model: ModelSource, config: Any) -> frozenset[int]:
        """Ids that end a response: those of the generation config (or else of the model's config) and the tokenizer's EOS."""
        from transformers import GenerationConfig

        try:
            generation = GenerationConfig.from_pretrained(model.path, revision=model.revision)
        except OSError:
            generation = GenerationConfig.from_model_config(config)
        ids = generation.eos_token_id
        ids = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
        return frozenset(i for i in (*ids, self.tokenizer.eos_token_id) if i is not None)

    def responses(self, tokens: Sequence[list[int]], logprobs: Sequence[float], stop: frozenset[int]) -> list[Response]:
        """Records of sampled token lists. The text leaves out the stop token and every special token."""
        if not tokens:
            return []
        finished = [row[-1] in stop for row in tokens]
        texts = self.tokenizer.batch_decode(
            [row[:-1] if done else row for row, done in zip(tokens, finished, strict=True)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return [
            {"text": text, "tokens": row, "finish": "stop" if done else "length", "logprob": logprob}
            for text, row, done, logprob in zip(texts, tokens, finished, logprobs, strict=True)
        ]

"""The lab's tokenizer: one token per task word, one per character, and a chat template.

    <user>Reverse then Upper: kapol<assistant>LOPAK<end>
    <user> | Reverse |  then  | Upper | :  | k | a | p | o | l | <assistant> | L | O | P | A | K | <end>

The vocabulary is sorted, so that every process builds the same; once trained, a policy is only ever read with the saved one.
"""

from __future__ import annotations

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from eva_hpc.lab.demonstrations import CHAT
from eva_hpc.lab.families import FAMILIES

PAD, UNKNOWN, USER, ASSISTANT, END = SPECIAL = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>")

_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + '<end>' }}"
    "{% else %}{{ raise_exception('the lab policy knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, to be saved beside the policy's weights and loaded with AutoTokenizer."""
    phrases = sorted({*FAMILIES, " then ", ": ", "Now ", " it", *CHAT}, key=lambda phrase: (-len(phrase), phrase))
    characters = sorted({" ", *string.ascii_letters, *string.digits, *string.punctuation})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *phrases, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    pattern = "|".join([*map(re.escape, phrases), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        padding_side="left",
    )

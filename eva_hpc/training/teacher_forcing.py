"""Log-probs of given responses under a policy, on one device, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM

from eva_hpc.inference.engine import ModelSource
from eva_hpc.inference.loading import attention_implementation, load_config
from eva_hpc.training.attention import supports
from eva_hpc.training.logprobs import SequenceLogProbs
from eva_hpc.training.packing import Tree, lay_out
from eva_hpc.training.reading import agree


class TeacherForcing:
    """A loaded policy that reads responses instead of sampling them."""

    def __init__(self, model: ModelSource, threads: int, batch_tokens: int) -> None:
        """Load the policy, on the GPU if there is one.

        Raises:
            OSError: the model is not there.
            ValueError: see :class:`SequenceLogProbs`.
        """
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_tokens = batch_tokens
        config = load_config(model)
        self._can_pack = supports(config)
        self._packs: bool | None = None
        self._precision = "fp32" if model.dtype == "float32" else "bf16"
        policy = AutoModelForCausalLM.from_pretrained(
            model.path,
            revision=model.revision,
            dtype=getattr(torch, model.dtype),
            use_safetensors=True,
            attn_implementation=attention_implementation(config, model.attention),
            trust_remote_code=model.trust_remote_code,
        )
        self._model = SequenceLogProbs(policy).to(self._device).eval()

    @torch.inference_mode()
    def _reads_alike(self, tree: Tree) -> bool:
        """Whether a packed tree gives what padded rows give, see :class:`eva_hpc.training.reading.PairReader`."""
        apart = [Tree(tree.prompt, (completion,)) for completion in tree.completions]
        found = self._model(lay_out([tree, *apart], True, self._device))[: len(apart)].cpu()
        expected = self._model(lay_out(apart, False, self._device)).cpu()
        return agree(found, expected, [len(completion) for completion in tree.completions], self._precision)

    def log_probs(self, trees: Sequence[Tree]) -> list[list[float]]:
        """For each prompt the sums of the log-probs of its completions' tokens, natural log.

        A batch holds trees of like size, one after the other in a row where the architecture can, and at most so many tokens as
        the limits say, or one tree.
        """
        if trees and self._packs is None:
            self._packs = self._can_pack and self._reads_alike(trees[0])
        pieces = list(trees)
        if not self._packs:
            pieces = [Tree(tree.prompt, (completion,)) for tree in trees for completion in tree.completions]
        order = sorted(range(len(pieces)), key=lambda i: -pieces[i].size)
        values: list[list[float]] = [[] for _ in pieces]
        while order:
            size = max(1, self._batch_tokens // pieces[order[0]].size)
            batch, order = order[:size], order[size:]
            with torch.inference_mode():
                found = iter(
                    self._model(lay_out([pieces[i] for i in batch], bool(self._packs), self._device)).double().tolist()
                )
            for i in batch:
                values[i] = [next(found) for _ in pieces[i].completions]
        flat = (value for of_piece in values for value in of_piece)
        return [[next(flat) for _ in tree.completions] for tree in trees]

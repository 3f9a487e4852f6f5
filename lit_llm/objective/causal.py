"""Next-token prediction (Bengio et al., 2003; Radford et al., 2018)."""

from torch import Generator

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.gpt import GPT
from lit_llm.objective.base import LossSums, Objective, summed_cross_entropy


class CausalLM(Objective):
    """Each token predicts the one after it, from itself and what came before.

    Which tokens count is decided by packing: labels are IGNORE at the end of a document, on
    padding, and on the prompt's side of a conversation.

    Args:
        chunk_tokens: tokens whose logits are held at a time
    """

    def __init__(self, chunk_tokens: int = 8192) -> None:
        self.chunk_tokens = chunk_tokens

    def __call__(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        layout = self.layout(batch)
        loss = gpt(
            batch.tokens_BT,
            layout,
            head=lambda hidden_BTD, _: summed_cross_entropy(
                hidden_BTD, gpt, batch.labels_BT, self.chunk_tokens
            ),
        )
        return LossSums(loss, (batch.labels_BT != IGNORE).sum(), batch.labels_BT)

    def has_targets(self, batch: Batch) -> bool:
        return bool((batch.labels_BT != IGNORE).any())

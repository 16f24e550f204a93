"""The two sequence models over the pages of a book, as the reference's checkpoints want them.

Layer: `worker.embed.classify`. Names of weights are the checkpoints' own, so that these load strictly. Two models
carry the name BookBERT there and are incompatible: one puts a page into one token of a plain transformer, the other
gives BERT two tokens a page. Both take a whole batch of padded books and a mask.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from pagemill_worker.embed.classify.settings import ClassifierConfig

TOKENS_A_PAGE = 2  # cosmo's: the text, then the picture, whose answer is read


class BookBert(nn.Module):
    """One token a page: both halves of the page's row side by side, projected, with the page's place added.

    Takes rows of shape (books, pages, visual + text dims) and a mask (books, pages), True where a page is. Gives
    logits of shape (books, pages, classes). The order of the two halves is the caller's and the checkpoint's.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        width = config.bert_input_dim
        self.input_projection = nn.Linear(config.visual_feature_dim + config.textual_feature_dim, width)
        self.pos_embedding: nn.Embedding | nn.Parameter | None = None
        if config.positional_embeddings == "absolute":
            self.pos_embedding = nn.Embedding(config.max_pages, width)
        elif config.positional_embeddings == "learned":
            self.pos_embedding = nn.Parameter(torch.zeros(1, config.max_pages, width))
        layer = nn.TransformerEncoderLayer(
            width, config.num_attention_heads, config.projection_dim, config.dropout_p, batch_first=True
        )
        # The fused path for nested tensors gives padded books other last digits than single ones.
        self.transformer_encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)
        self.classifier_head = nn.Linear(width, len(config.labels))

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        tokens = self.input_projection(rows)
        if isinstance(self.pos_embedding, nn.Embedding):
            tokens = tokens + self.pos_embedding.weight[: tokens.shape[1]]
        elif self.pos_embedding is not None:
            tokens = tokens + self.pos_embedding[:, : tokens.shape[1]]
        return self.classifier_head(  # type: ignore[no-any-return]
            self.transformer_encoder(tokens, src_key_padding_mask=~mask)
        )


class Cosmo(nn.Module):
    """Two tokens a page through BERT: the text's, then the picture's; the picture's answer is classified.

    Takes and gives what BookBert does; the visual half of a row must come first.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self._visual_dim = config.visual_feature_dim
        width, hidden = config.bert_input_dim, config.hidden_dim
        self.bert_encoder: Any = BertModel(
            BertConfig(
                hidden_size=width,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=4 * width,
                hidden_dropout_prob=config.dropout_p,
                attention_probs_dropout_prob=config.dropout_p,
                max_position_embeddings=TOKENS_A_PAGE * config.max_pages,
            )
        )
        self.classifier = _steps(hidden, width, config, classes=len(config.labels))
        self.visual_projection = _projection(config.visual_feature_dim, width, config.dropout_p)
        self.textual_projection = _projection(config.textual_feature_dim, width, config.dropout_p)
        self.norm = nn.LayerNorm(width)
        # In every checkpoint and in no computation; it must be there for the weights to load strictly.
        self.projection = nn.Linear(config.visual_feature_dim, width)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        books, pages = mask.shape
        text = self.norm(self.textual_projection(rows[..., self._visual_dim :]))
        picture = self.norm(self.visual_projection(rows[..., : self._visual_dim]))
        tokens = torch.stack([text, picture], dim=2).reshape(books, TOKENS_A_PAGE * pages, -1)
        seen = mask.repeat_interleave(TOKENS_A_PAGE, dim=1).to(tokens.dtype)
        answer = self.bert_encoder(inputs_embeds=tokens, attention_mask=seen).last_hidden_state
        of_pictures = answer.reshape(books, pages, TOKENS_A_PAGE, -1)[:, :, -1]
        return self.classifier(of_pictures)  # type: ignore[no-any-return]


def _projection(given: int, width: int, dropout: float) -> nn.Sequential:
    wide = (given + width) * 2
    return nn.Sequential(
        nn.Linear(given, wide),
        nn.LayerNorm(wide),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(wide, wide // 2),
        nn.LayerNorm(wide // 2),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(wide // 2, width),
    )


def _steps(hidden: int, width: int, config: ClassifierConfig, classes: int) -> nn.Sequential:
    """The last layers: the weights of a checkpoint are numbered 0, 1, 2, 5, 6 and 9."""
    layers: list[nn.Module] = [nn.Linear(width, hidden)]
    for wide in (hidden, hidden // 2):
        layers += [nn.Linear(wide, wide // 2), nn.LayerNorm(wide // 2), nn.GELU(), nn.Dropout(config.dropout_p)]
    layers.append(nn.Linear(hidden // 4, classes))
    return nn.Sequential(OrderedDict((str(place), layer) for place, layer in enumerate(layers)))

"""A text encoder that trains in a second, and texts that tell good films from bad ones."""

import numpy as np
import torch

from tlbook.data import Dataset
from tlbook.text import Bert, TextEncoder

VOCABULARY = "\n".join("[PAD] [UNK] [CLS] [SEP] good bad film ##s the a was very he she . plot".split())


def tiny_text(seed=0, **options):
    torch.manual_seed(seed)
    model = Bert(words=16, positions=40, width=16, depth=3, heads=2)
    for p in model.parameters():  # a start at random is nearly zero: then every text looks like every other
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return TextEncoder(model, "tiny", VOCABULARY, **{"max_tokens": 40} | options)


def films(n=48):
    """Alternating good and bad; of several lengths, in groups of four."""
    y = np.arange(n) % 2
    texts = [f"the film was {'very ' * (i % 5)}{'good' if y[i] else 'bad'} ." for i in range(n)]
    return Dataset(texts, y, ("bad", "good"), np.arange(n) // 4)

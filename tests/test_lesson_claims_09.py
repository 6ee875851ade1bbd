"""What lesson 09 asserts fails when there is nothing to transfer: random weights, shuffled labels."""

import numpy as np
import pytest
import torch

import tlbook as tl
from tlbook import speech, text
from tlbook.data import Split
from tlbook.feature_extraction import Features
from tlbook.splits import few


@pytest.fixture(scope="module")
def news():
    return tl.data.news().subset(slice(None, None, 4))


@pytest.fixture(scope="module")
def split(news):
    return news.split(test=0.4, val=0, seed=0)


def encoder(weights="default"):
    torch.manual_seed(0)
    found = tl.load_backbone("minilm", weights=weights)
    found.set_max_tokens(32)
    return found


@pytest.fixture(scope="module")
def accuracy(news, split):
    """(features, labels) -> the accuracy of a probe on 32 labels, of each of three draws."""

    def accuracy(features, labels=news.labels):
        F, scores = Features(features.X, labels, features.groups, features.blocks), []
        for seed in range(3):
            some = Split(few(split.train, labels, 32, seed), split.train[:0], split.test)
            probe = tl.linear_probe(F, some, C=0.1, class_weight="balanced")
            scores.append(probe.evaluate(F, split.test).accuracy)
        return np.array(scores)

    return accuracy


@pytest.fixture(scope="module")
def pretrained(news):
    return tl.extract(encoder(), news)


@pytest.fixture(scope="module")
def untrained(news):
    return tl.extract(encoder(None), news)


@pytest.fixture(scope="module")
def rival(news, split):
    read = encoder(None)
    return text.tfidf(news, split.train, [read.begin(words) for words in news.inputs])


def assert_ahead(scores, of_rival):
    """As the lesson does."""
    assert (scores - of_rival).mean() > 0.1 and (scores > of_rival).all()


def test_a_sentence_encoder_needs_fewer_labels_than_counts_of_the_same_words(accuracy, pretrained, rival):
    assert_ahead(accuracy(pretrained), accuracy(rival))


def test_the_claim_fails_with_random_weights(accuracy, untrained, rival):
    with pytest.raises(AssertionError):
        assert_ahead(accuracy(untrained), accuracy(rival))


def test_the_claim_fails_with_shuffled_labels(accuracy, pretrained, rival, news):
    labels = np.random.default_rng(0).permutation(news.labels)
    with pytest.raises(AssertionError):
        assert_ahead(accuracy(pretrained, labels), accuracy(rival, labels))


@pytest.fixture(scope="module")
def digits():
    try:
        data = tl.data.spoken_digits()
    except FileNotFoundError:
        pytest.skip("the spoken digits are not here: set TLBOOK_MIRROR")
    return data.subset(data.columns["take"] < 15)


def unheard(F, data, labels=None):
    F = Features(F.X, data.labels if labels is None else labels, data.groups, F.blocks)
    p = tl.cross_val_predict(F, data.folds(k=6, seed=0), C=0.01)
    return float((p.argmax(1) == F.y).mean())


def listened(digits, weights, **options):
    torch.manual_seed(0)
    listener = speech.SpectrogramBackbone(tl.load_backbone(weights=weights), **options)
    if weights is None:
        tl.recalibrate_batchnorm(listener, digits, np.arange(0, len(digits), 5))
    return tl.extract(listener, digits, stages=("blocks.4",))


def test_a_network_for_photographs_hears_digits_of_voices_never_heard_if_pitch_is_kept(digits):
    photographs, simple = listened(digits, "default"), speech.coarse_spectrograms(digits)
    best = unheard(photographs, digits)
    assert best > unheard(simple, digits) + 0.03
    assert best > unheard(listened(digits, "default", keep_pitch=False), digits) + 0.1
    assert best > unheard(listened(digits, None), digits) + 0.1
    shuffled = np.random.default_rng(0).permutation(digits.labels)
    assert unheard(photographs, digits, shuffled) < 0.2

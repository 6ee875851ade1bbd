"""Sound: spectrograms as an independent implementation makes them; odd recordings are right, or named."""

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly, spectrogram

import tlbook as tl
from tlbook import speech
from tlbook.data import Dataset
from tlbook.speech import Sound, SpectrogramBackbone, log_mel, read_wav


def tone(frequency=440, rate=8_000, seconds=1.0, amplitude=0.5):
    t = np.arange(round(rate * seconds)) / rate
    return Sound((amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32), rate)


def write(path, samples, rate=8_000):
    wavfile.write(path, rate, samples)
    return path


def noise(n=6_000, seed=0):
    return Sound(np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32), 8_000)


@pytest.fixture
def listener():
    torch.manual_seed(0)
    return SpectrogramBackbone(tl.load_backbone("test_resnet", weights=None), side=32)


def test_mel_filters_are_those_of_an_independent_implementation():
    audio = pytest.importorskip("transformers.audio_utils")
    theirs = audio.mel_filter_bank(129, 64, 0, 4_000, 8_000, norm=None, mel_scale="htk")
    assert np.allclose(speech.mel_filters(64, 256, 8_000), theirs.T, atol=1e-9)


def test_power_is_that_of_scipy():
    x = noise(8_000)
    _, _, P = spectrogram(
        x.samples.astype(np.float64), 8_000, "hann", 256, 256 - 80, detrend=False, scaling="spectrum", mode="psd"
    )
    P[1:-1] /= 2  # one-sided: scipy adds the other half
    S = 10 * np.log10(np.maximum(speech.mel_filters(64, 256, 8_000) @ P, 1e-30))
    assert np.allclose(log_mel(x), np.maximum(S - S.max(), -80), atol=1e-3)


def test_a_tone_sounds_at_its_own_pitch_whatever_its_loudness():
    for frequency in (200, 440, 1_000, 3_000):
        mel = 2595 * np.log10(1 + frequency / 700)
        bin = mel / (2595 * np.log10(1 + 4_000 / 700)) * 65 - 1
        S = log_mel(tone(frequency))
        assert abs(S.mean(1).argmax() - bin) <= 1
        assert np.allclose(S, log_mel(tone(frequency, amplitude=0.01)), atol=0.1)
        assert S.max() == 0 and S.min() >= -80


def test_a_short_recording_is_followed_by_silence_and_a_long_one_is_cut():
    S = log_mel(tone(seconds=0.4))
    assert S.shape == (64, 97) and (S[:, 45:] == -80).all() and S[:, :35].max() == 0
    assert np.array_equal(log_mel(tone(seconds=3)), log_mel(tone(seconds=1)))


def test_a_recording_at_44_1_kHz_looks_as_at_8_kHz():
    S, other = log_mel(tone(440)), log_mel(tone(440, rate=44_100))
    loud = S > -40
    assert other.shape == S.shape and np.abs(S - other)[loud].max() < 1
    x = resample_poly(noise().samples, 441, 80).astype(np.float32)
    assert np.abs(log_mel(noise()) - log_mel(Sound(x, 44_100)))[:55].mean() < 1.5  # the filter takes the highest bins


def test_integers_floats_and_stereo_are_read_alike(tmp_path):
    x = tone().samples
    files = {
        "int16": (x * 32_767).astype(np.int16),
        "int32": (x * (2**31 - 1)).astype(np.int32),
        "uint8": (x * 127 + 128).round().astype(np.uint8),
        "float32": x,
        "stereo": np.stack([x * 1.5, x * 0.5], 1),
    }
    for name, samples in files.items():
        sound = read_wav(write(tmp_path / f"{name}.wav", samples))
        assert sound.rate == 8_000 and sound.samples.dtype == np.float32
        assert np.allclose(sound.samples, x, atol=0.01 if name == "uint8" else 1e-4), name


BAD = {
    "silent": (lambda path: write(path, np.zeros(4_000, np.int16)), "is silent"),
    "empty": (lambda path: path.write_bytes(b""), "is not a .wav file"),
    "no samples": (lambda path: write(path, np.zeros(0, np.int16)), "n > 0 samples"),
    "text": (lambda path: path.write_text("no sound at all"), "is not a .wav file"),
    "not finite": (lambda path: write(path, np.full(100, np.nan, np.float32)), "not finite"),
    "header alone": (lambda path: path.write_bytes(write(path, np.ones(99, np.int16)).read_bytes()[:30]), "is cut off"),
    "cut off": (
        lambda path: path.write_bytes(write(path, np.ones(4_000, np.int16)).read_bytes()[:3_000]),
        "is cut off",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_is_an_error_that_names_it(name, tmp_path):
    make, words = BAD[name]
    make(tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=f"bad.wav.*{words}"):
        read_wav(tmp_path / "bad.wav")


def test_a_recording_that_cannot_be_heard_is_named_by_its_place(listener):
    data = Dataset([tone(), Sound(np.zeros(100, np.float32), 8_000)] * 2, [0, 1, 0, 1], ("a", "b"))
    with pytest.raises(ValueError, match="example 1 cannot be read: the recording is silent"):
        tl.extract(listener, data, cache=False)
    with pytest.raises(TypeError, match=r"must be a tl.speech.Sound\(samples, rate\), got ndarray"):
        listener.prepare([np.zeros(100)])
    with pytest.raises(FileNotFoundError, match="none.wav does not exist"):
        read_wav("none.wav")


def test_a_picture_has_pitch_upwards_and_time_to_the_right(listener):
    rising = Sound(np.concatenate([tone(300, seconds=0.5).samples, tone(2_500, seconds=0.5).samples]), 8_000)
    picture = listener.as_tensor(rising)[0].float()
    assert picture.shape == (32, 32)
    early, late = picture[:, 2:12].mean(1).argmax(), picture[:, 20:30].mean(1).argmax()
    assert early > late  # rows count from above


def words(n=40):
    """Two words of two tones each, by speakers of several pitches."""
    y, draw = np.arange(n) % 2, np.random.default_rng(0)
    sounds = []
    for k in y:
        low, high = (tone(f * draw.uniform(0.9, 1.1), seconds=0.3).samples for f in (400, 2_000))
        sounds.append(Sound(np.concatenate([low, high] if k else [high, low]), 8_000))
    return Dataset(sounds, y, ("falling", "rising"), np.arange(n) // 4)


def test_sounds_are_extracted_and_fine_tuned_and_saved_by_the_same_calls(one_thread_and_own_cache, listener, tmp_path):
    data = words()
    split = data.split(test=0.25, seed=0)
    features = tl.extract(listener, data, precision="float32")
    assert tl.linear_probe(features, split).evaluate(features, split.test).accuracy == 1
    found = tl.finetune(listener, data, split, epochs=1)
    found.save(tmp_path / "model", data=data, split=split)
    back = tl.load_finetuned(tmp_path / "model")
    assert np.allclose(back.predict(data), found.predict(data), atol=1e-6) and back.model.name == listener.name
    wav = write(tmp_path / "new.wav", data.inputs[0].samples)
    assert np.allclose(back.predict(wav), back.predict([data.inputs[0]]), atol=1e-6)
    with pytest.raises(ValueError, match="augment must be one of"):
        tl.finetune(listener, data, split, augment="flips")


def test_pitch_is_kept_and_time_is_averaged():
    backbone = tl.load_backbone("test_resnet", weights=None)
    z = torch.arange(24.0).view(1, 2, 3, 4)
    assert SpectrogramBackbone(backbone, side=32).pool(z)[0].tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5]
    assert SpectrogramBackbone(backbone, side=32, keep_pitch=False).pool(z)[0].tolist() == [5.5, 17.5]
    kept, lost = (SpectrogramBackbone(backbone, side=32, keep_pitch=k) for k in (True, False))
    rows = {stage: kept.stages[stage] // lost.stages[stage] for stage in kept.stages}
    assert rows["stem"] == 8 and rows["final"] == 1 and kept.fingerprint != lost.fingerprint


def test_the_network_is_shared_and_its_fingerprint_is_another(listener):
    backbone = tl.load_backbone("test_resnet", weights=None)
    a, b = SpectrogramBackbone(backbone), SpectrogramBackbone(backbone, seconds=0.5)
    assert a.model is backbone.model
    assert len({backbone.fingerprint, a.fingerprint, b.fingerprint}) == 3


def test_the_spoken_digits_are_the_published_ones_where_they_are_here(monkeypatch):
    try:
        data = tl.data.spoken_digits()
    except FileNotFoundError:
        pytest.skip("the spoken digits are not here: set TLBOOK_MIRROR")
    assert len(data) == 3_000 and set(data.class_counts) == {300} and len(np.unique(data.groups)) == 6
    assert (data.columns["part"] == "test").sum() == 300
    who = tl.data.spoken_digits("speaker")
    assert len(who.class_names) == 6 and len(np.unique(who.groups)) == 10
    monkeypatch.setattr(tl.data.published, "DIGITS", "0" * 64)
    with pytest.raises(ValueError, match="these are not the 3,000 recordings"):
        tl.data.spoken_digits()


def test_without_the_spoken_digits_it_is_said_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path))
    monkeypatch.setenv("TLBOOK_MIRROR", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"spoken_digits\(download=True\) fetches them"):
        tl.data.spoken_digits()
    monkeypatch.setattr(tl.data.published, "_DIGITS_URL", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        tl.data.spoken_digits(download=True)
    with pytest.raises(ValueError, match="label must be 'digit' or 'speaker'"):
        tl.data.spoken_digits("accent")


def test_coarse_spectrograms_are_means_over_a_grid():
    data = words(4)
    F = speech.coarse_spectrograms(data, bins=32, frames=24)
    S = log_mel(data.inputs[1])
    assert F.X.shape == (4, 768) and F.groups is data.groups
    assert np.allclose(F.X[1, 5 * 24 + 7], S[10:12, 28:32].mean(), atol=1e-4)

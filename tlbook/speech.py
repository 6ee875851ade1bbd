"""Sound: a recording becomes a picture of which frequencies sound when, and a network for images looks at it.

The log-mel spectrogram S of samples x:

    P[f, t] = |Σₙ w[n] x[t·hop + n] e^(−2πi f n / N)|²          power at frequency f around time t (w: Hann's window)
    S[m, t] = 10 log₁₀ Σ_f M[m, f] P[f, t]                      in decibels; M: triangles, equally wide on the mel scale

on which equal steps are heard as equal steps of pitch: mel(f) = 2595 log₁₀(1 + f / 700).

Lesson 09. Works cited below:
  Stevens, Volkmann & Newman (1937), A Scale for the Measurement of the Psychological Magnitude Pitch
  Hershey et al. (2017), CNN Architectures for Large-Scale Audio Classification, arXiv:1609.09430
"""

import math
import os
import threading
import warnings
from typing import NamedTuple

import numpy as np
import torch

from tlbook.backbones import Backbone

WINDOW, HOP = 0.032, 0.01  # seconds: of a window, and from one to the next
BINS = 64  # frequencies on the mel scale
RANGE = 80  # decibels below the loudest place; what is softer counts as silence

_ONE_AT_A_TIME = threading.Lock()


class Sound(NamedTuple):
    """A recording: ``samples`` (n,) float32 in −1 … 1, and ``rate``, how many make a second."""

    samples: np.ndarray
    rate: int


def read_wav(path, file=None):
    """Read a .wav file of any rate, of integers or floats: a `Sound`; of several channels the mean.

    Args:
        path: of the file, or its name in an error where an open ``file`` is read instead.

    Raises:
        FileNotFoundError: no such file. ValueError: it is no .wav file, damaged, cut off, empty or silent.
    """
    from scipy.io import wavfile

    if file is None:
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} does not exist")
        with open(path, "rb") as opened:
            return read_wav(path, opened)
    if _is_cut_off(file):
        raise ValueError(f"{path} is cut off: it says that it holds more than it does")
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():  # the filters belong to all threads
            warnings.filterwarnings("ignore", message="Chunk")  # of what others write into the file beside the sound
            rate, x = wavfile.read(file)
    except Exception as error:  # on damaged files nearly every kind
        raise ValueError(f"{path} is not a .wav file ({error})") from None
    if x.dtype.kind in "iu":
        middle = 128 if x.dtype == np.uint8 else 0
        x = (x.astype(np.float32) - middle) / 2 ** (8 * x.dtype.itemsize - 1)
    x = np.asarray(x, dtype=np.float32)
    sound = Sound(x.mean(1) if x.ndim > 1 else x, int(rate))
    try:
        _check(sound)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sound


def _is_cut_off(file):
    """Whether an open .wav file ends before the length that its first bytes state."""
    head, end = file.read(8), file.seek(0, os.SEEK_END)
    file.seek(0)
    stated = int.from_bytes(head[4:], "little")
    return head[:4] == b"RIFF" and stated < 2**32 - 1 and end + 1 < 8 + stated  # 2³² − 1: written before it was known


def _check(sound):
    """Refuse what cannot be heard."""
    if not isinstance(sound, Sound):
        raise TypeError(f"a recording must be a tl.speech.Sound(samples, rate), got {type(sound).__name__}")
    samples = np.asarray(sound.samples)
    if samples.ndim != 1 or not len(samples) or not sound.rate > 0:
        raise ValueError(f"a recording must be n > 0 samples at a positive rate, got {samples.shape} at {sound.rate}")
    if not np.isfinite(samples).all():
        raise ValueError("the recording holds samples that are not finite: leave it out")
    if not samples.any():
        raise ValueError("the recording is silent: leave it out")


def mel_filters(bins, size, rate):
    """(bins, size // 2 + 1): M, the weight of each frequency of a window of ``size`` samples in each mel bin."""
    mel = np.linspace(0, 2595 * math.log10(1 + rate / 2 / 700), bins + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)  # in Hz; bin m rises from edge m to edge m + 1, and falls to edge m + 2
    f = np.fft.rfftfreq(size, 1 / rate)
    rising = (f - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - f) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(sound, rate=8_000, seconds=1.0, bins=BINS):
    """Return S (bins, frames) float32, in decibels below the loudest place, from −80 to 0.

    The recording is first brought to ``rate`` samples a second, and to ``seconds``: of a longer one the end is not
    heard, a shorter one is followed by silence.

    Args:
        sound: `Sound`.

    Raises:
        TypeError: no `Sound`. ValueError: it is empty, silent, or not finite.

    >>> hum = Sound(np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000).astype(np.float32), 8_000)
    >>> S = log_mel(hum)
    >>> S.shape, int(S.mean(1).argmax())  # bin 16 is the one around 440 Hz
    ((64, 97), 16)

    Lesson 09; Stevens et al. (1937).
    """
    from scipy.signal import resample_poly

    # The samples, at one rate and of one length
    _check(sound)
    common = math.gcd(rate, sound.rate)
    x = np.asarray(sound.samples, dtype=np.float64)
    x = x if rate == sound.rate else resample_poly(x, rate // common, sound.rate // common)
    x = x[: round(seconds * rate)]
    x = np.pad(x, (0, round(seconds * rate) - len(x)))

    # Power at each frequency, window by window
    size, hop = round(WINDOW * rate), round(HOP * rate)
    windows = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]  # (frames, size)
    power = np.abs(np.fft.rfft(windows * np.hanning(size + 1)[:-1], axis=1)) ** 2

    # Decibels on the mel scale
    S = 10 * np.log10(np.maximum(mel_filters(bins, size, rate) @ power.T, 1e-10))
    return np.maximum(S - S.max(), -RANGE).astype(np.float32)


def coarse_spectrograms(data, bins=32, frames=24):
    """Spectrograms as `Features`: means over a grid of ``bins`` × ``frames``; what is known before any network.

    Args:
        data: Dataset of N `Sound`. bins: a divisor of 64. frames: at most the 97 of a second; the rest of a division is
            left out at the end.

    Returns:
        Features (N, bins · frames), one block, "spectrogram".

    Lesson 09.
    """
    from tlbook.feature_extraction import Features

    S = np.stack([log_mel(sound) for sound in data.inputs])  # (N, 64, 97)
    each = S.shape[2] // frames
    X = S[:, :, : frames * each].reshape(len(S), bins, BINS // bins, frames, each).mean((2, 4)).reshape(len(S), -1)
    return Features(X, data.labels, data.groups, {"spectrogram": slice(0, X.shape[1])})


class SpectrogramBackbone(Backbone):
    """A `Backbone` that is shown spectrograms: its inputs are recordings, and its network is the one for images.

    Only the preparation is another: the operators cannot tell the difference.

    Args:
        backbone: Backbone, whose weights it shares.
        rate: samples a second to which recordings are brought. seconds: of a recording that are heard.
        side: height and width in pixels of the picture of a spectrogram.
        keep_pitch: average a stage's map over time alone, which keeps a value for each height: in a photograph a thing
            is the same thing wherever it stands, in a spectrogram height is pitch. "final" is what the network's own
            head reads, an average over all.

    >>> import tlbook as tl
    >>> listener = SpectrogramBackbone(tl.load_backbone(weights=None), side=64)
    >>> listener.prepare([Sound(np.ones(4_000, np.float32), 8_000)]).shape
    torch.Size([1, 3, 64, 64])

    Lesson 09; Hershey et al. (2017).
    """

    libraries = (*Backbone.libraries, "scipy")
    kind = "sounds"
    augmentations = (None,)  # a mirrored recording runs backwards

    def __init__(self, backbone, rate=8_000, seconds=1.0, side=96, keep_pitch=True):
        self.rate, self.seconds, self.keep_pitch = rate, seconds, keep_pitch
        settings = backbone.facts() | {"input_size": side}
        if backbone._fixed_size:
            settings["input_size"] = backbone.input_size
        settings.pop("architecture")
        super().__init__(backbone.model, f"{backbone.name} on spectrograms", **settings)

    def _example(self):
        return Sound(np.ones(self.rate, np.float32), self.rate)

    def facts(self):
        """What rebuilds it, as `FineTuned.save` writes it."""
        return super().facts() | {k: getattr(self, k) for k in ("rate", "seconds", "keep_pitch")}

    def pool(self, z):
        """The output of a stage -> (B, C · h), its mean over time, or (B, C), over all."""
        return z.mean(3).flatten(1) if self.keep_pitch and z.ndim == 4 else super().pool(z)

    def as_tensor(self, x):
        """A recording as a grey picture, uint8 (1, side, side): time to the right, pitch upwards, loud is bright."""
        S = torch.from_numpy(log_mel(x, self.rate, self.seconds)).flip(0)
        picture = torch.nn.functional.interpolate(
            S[None, None], self._size, mode="bilinear", antialias=True, align_corners=False
        )
        return (255 * (1 + picture[0] / RANGE)).round().clamp(0, 255).to(torch.uint8)

"""What the three operators ask of a pretrained network, whatever its inputs are: images, text, sound.

An `Encoder` prepares its inputs, has stages whose outputs can be pooled, and can be cut in two. `tlbook.backbones`
makes one of a network for images, `tlbook.text` of one for text, `tlbook.speech` of one for images that is shown
spectrograms. An encoder of one's own is a subclass with one method, `as_tensor`; lesson 09 writes one.
"""

from operator import attrgetter

import torch
from torch import nn

from tlbook import fingerprint


class Encoder(nn.Module):
    """A network taken apart: preparation, stages, final features, head.

    Args:
        model: nn.Module. Its attribute ``head`` is the classifier, a module from final features to logits; where there
            is none yet, it gets one that changes nothing.
        name: what it is called in blocks of features, reports and errors.
        parts: {stage: names of the modules of ``model`` that run in it, one after the other}, in order; the last stage
            must be "final".
        example: an input, by which the widths of the stages are measured.

    Attributes:
        stages: {stage: width of its pooled output}, in order; the last is "final", the features that the head reads.
        num_features: the width of "final".
        views: {name: function of a prepared batch}, what `tlbook.extract` may show it; a name that ends in ":" asks for
            a number.
        augmentations: what `tlbook.finetune` may be given for ``augment``.
        libraries: packages by whose versions its features may change.
        reads: the stages whose pooled outputs, side by side, are what the head reads.
        side: in pixels, to which it resizes images, so that large files need not be decoded whole; None: it wants all.

    Raises:
        ValueError: the last stage is not "final".

    >>> class Halves(Encoder):
    ...     def as_tensor(self, x):
    ...         return torch.tensor([len(x) / 2, len(x) % 2])
    >>> encoder = Halves(nn.Sequential(nn.Linear(2, 5), nn.ReLU()), "halves", {"first": ("0",), "final": ("1",)}, "abc")
    >>> encoder.stages
    {'first': 5, 'final': 5}

    Lesson 09.
    """

    views = {"identity": lambda x: x}
    augmentations = (None,)
    libraries = ()
    reads = ("final",)
    side = None
    kind = None  # of inputs, a name out of `tlbook.kinds`, where files of them can be read

    def __init__(self, model, name, parts, example):
        super().__init__()
        if list(parts)[-1:] != ["final"]:
            raise ValueError(f"the last stage must be called 'final', got the stages {list(parts)}")
        self.model, self.name, self.parts = model, name, dict(parts)
        self.stages = dict.fromkeys(self.parts)
        if not hasattr(model, "head") and not hasattr(model, "get_classifier"):
            model.head = nn.Identity()
        self.eval()
        with torch.inference_mode():
            pooled = self.forward_stages(self.prepare([example]), list(self.parts))
        self.stages = {stage: z.shape[1] for stage, z in pooled.items()}
        self.num_features = self.stages["final"]

    # Preparation

    def as_tensor(self, x):
        """One input as a tensor; all of one data set must have one shape."""
        raise NotImplementedError("an encoder says in as_tensor(x) how an input becomes a tensor")

    def collate(self, tensors):
        """What `as_tensor` made of B inputs -> a batch (B, …) on the encoder's device; floats get its dtype."""
        x, like = torch.stack(list(tensors)), next(self.parameters())
        return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)

    def prepare(self, inputs):
        """Make a batch of inputs ready, as in pretraining: the preparation is part of the model.

        Args:
            inputs: B ≥ 1 of them.

        Returns:
            (B, …) on the encoder's device: of images (B, 3, H, W) normalised, of texts (B, T) tokens.

        Raises:
            TypeError: inputs of another kind. ValueError: no input, or one that cannot be prepared.
        """
        return self.collate([self.as_tensor(x) for x in inputs])

    def fit_to(self, x):
        """Adopt, before training, what an input says of all of them (the size of an image); by default nothing."""

    def view(self, name):
        """The function of a prepared batch that a view is.

        Raises:
            ValueError: an unknown view.
        """
        kind, colon, number = name.partition(":")
        try:
            function = self.views[kind + colon]
            return (lambda x, s=float(number): function(x, s)) if colon else function
        except (KeyError, ValueError):
            raise ValueError(
                f"unknown view {name!r}: views are {', '.join(self.views)} (with a number after a colon)"
            ) from None

    # What it is

    @property
    def head(self):
        """The classifier: final features -> logits."""
        return self.model.head

    def reset_head(self, classes, reads=("final",)):
        """Replace the head by a linear one at random, which reads the pooled outputs of these stages side by side.

        A network whose head reads other stages than "final" predicts, is saved and exported; it is not fine-tuned, and
        cannot be cut in two.
        """
        self.model.head = nn.Linear(self._width_of(reads), classes).to(self.device)  # a seed is one head
        self.reads = tuple(reads)

    def _width_of(self, reads):
        return sum(list(self.stages.values())[self._position(stage)] for stage in reads)

    @property
    def device(self):
        """Where the parameters are; `prepare` sends its batches there."""
        return next(self.parameters()).device

    @property
    def fingerprint(self):
        """SHA-256, in hexadecimal, over all that decides the features but hooks: see `has_hooks`.

        That is every class and setting of the model (pooling, activations, drop rates), its preparation and weights,
        and the versions of the libraries that it runs on. Versions of torch differ in rounding alone.
        """
        return fingerprint.fingerprint(self)

    @property
    def has_hooks(self):
        """Whether it runs what `fingerprint` cannot know (hooks, replaced methods, closures): nothing may be cached."""
        return fingerprint.has_hooks(self)

    def facts(self):
        """What rebuilds it, for `FineTuned.save`: a dict that JSON can hold.

        Raises:
            ValueError: an encoder of one's own, whose class no file can hold.
        """
        raise ValueError(
            f"{self.name} is an encoder of your own, which tlbook cannot rebuild from a folder: save "
            "found.model.state_dict(), and load it into an encoder that your own code makes"
        )

    # The forward pass, whole or in parts

    def forward_features(self, batch):
        """A prepared batch -> the output of the last stage, not yet pooled."""
        return self._run(sum(self.parts.values(), ()), batch)

    def forward_head(self, z, pre_logits=False):
        """The output of the last stage -> logits (B, K), or with ``pre_logits`` the final features (B, D)."""
        return self.pool(z) if pre_logits else self.head(self.pool(z))

    def forward(self, batch):
        """A prepared batch -> logits (B, K)."""
        if self.reads != ("final",):
            return self.head(torch.cat(list(self.forward_stages(batch, self.reads).values()), 1))
        return self.forward_head(self.forward_features(batch))

    def pool(self, z):
        """The output of a stage -> (B, D): the mean over what follows the second dimension."""
        return z.flatten(2).mean(2) if z.ndim > 2 else z

    def forward_stages(self, batch, stages=("final",)):
        """Run the network once, no deeper than needed, and pool the output of each stage asked for.

        Returns:
            {stage: (B, D_stage)} in the order of ``stages``; "final" is what the head reads.

        Raises:
            ValueError: an unknown stage.
        """
        pooled = {stage: None for stage in stages}
        deepest = max(map(self._position, pooled))
        z = batch
        for stage, parts in list(self.parts.items())[: deepest + 1]:
            z = self._run(parts, z)
            if stage in pooled:
                pooled[stage] = self.forward_head(z, pre_logits=True) if stage == "final" else self.pool(z)
        return pooled

    def prefix(self, stage):
        """Return the function from a batch to the output of ``stage`` (included), not pooled; of "final", pooled."""
        if self._position(stage) == len(self.stages) - 1:
            return lambda batch: self.forward_stages(batch)["final"]
        parts = sum(list(self.parts.values())[: self._position(stage) + 1], ())
        return lambda batch: self._run(parts, batch)

    def suffix(self, stage):
        """Return the function from what ``prefix(stage)`` gives to logits; of "final", the head.

        In eval mode, ``suffix(s)(prefix(s)(x))`` is ``forward(x)``.

        Raises:
            ValueError: an unknown stage, or a head that reads other stages than "final".
        """
        if self.reads != ("final",):
            raise ValueError(f"the head of {self.name} reads {' and '.join(self.reads)}: no one place cuts it in two")
        if self._position(stage) == len(self.stages) - 1:
            return lambda z: self.head(z)
        parts = sum(list(self.parts.values())[self._position(stage) + 1 :], ())
        return lambda z: self.forward_head(self._run(parts, z))

    def _run(self, parts, z):
        for part in parts:
            z = attrgetter(part)(self.model)(z)
        return z

    def _position(self, stage):
        if stage not in self.stages:
            raise ValueError(f"{self.name} has no stage {stage!r}; its stages are {list(self.stages)}")
        return list(self.stages).index(stage)

"""Where a network looked for its answer."""

import numpy as np
import torch
from torch.nn import functional as F


def has_map(found, inputs):
    """Tell whether the final features are a map (C, h, w), as `grad_cam` needs them; a transformer's are not."""
    with torch.inference_mode():
        return found.model.forward_features(found.model.prepare(inputs)).ndim == 4


def grad_cam(found, inputs, classes=None):
    """Return where each image speaks for a class: (B, H, W) float32 in 0 … 1.

    With the final feature map A (C, h, w) and the logit z of the class, the map is ReLU(Σ_c w_c A_c), where w_c is the
    mean of ∂z/∂A_c over positions; it is enlarged to the image and divided by its maximum. A map of zeros says that
    nothing speaks for the class. It shows what raises the logit, which need not be why the answer is right.

    Args:
        found: FineTuned, convolutional. inputs: B images of one size once prepared.
        classes: (B,) integers; the most probable class of each unless given.

    Raises:
        ValueError: the final features are no map, as in a transformer.

    Selvaraju et al., Grad-CAM, ICCV 2017.
    """
    model = found.model
    x = model.prepare(inputs)
    with torch.enable_grad():
        A, logits_of = _map_and_rest(model, x)
        if A.ndim != 4:
            raise ValueError(
                f"{model.name} ends in {A.ndim - 1}-dimensional features, and Grad-CAM needs a map (C, h, w)"
            )
        logits = logits_of(A)
        channels, *positions = (
            (3, 1, 2) if getattr(model.model, "output_fmt", "") == "NHWC" else (1, 2, 3)
        )  # Swin's last
        k = logits.argmax(1) if classes is None else torch.as_tensor(np.asarray(classes), device=logits.device)
        (gradient,) = torch.autograd.grad(logits.gather(1, k[:, None]).sum(), A)
    heat = F.relu((gradient.mean(positions, keepdim=True) * A.detach()).sum(channels))  # (B, h, w)
    heat = F.interpolate(heat[:, None], x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()


def _map_and_rest(model, x):
    """(the map of the deepest stage that the head reads, which wants a gradient; the function from it to logits)."""
    *others, deepest = sorted(model.reads, key=list(model.stages).index)
    A = model.forward_features(x) if deepest == "final" else model.prefix(deepest)(x)
    pooled = model.forward_stages(x, others) if others else {}

    def logits_of(A):
        at_deepest = model.forward_head(A, pre_logits=True) if deepest == "final" else model.pool(A)
        of = {name: z.detach() for name, z in pooled.items()} | {deepest: at_deepest}
        return model.head(torch.cat([of[stage] for stage in model.reads], 1))

    return A.detach().requires_grad_(), logits_of

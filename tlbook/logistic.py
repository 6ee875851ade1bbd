"""The solver of the linear probe: multinomial logistic regression with an L2 penalty.

    minimise over W, b:   f = C Σᵢ sᵢ ℓ(W zᵢ + b, yᵢ) + ½ ‖W‖²        ℓ = cross-entropy, sᵢ = weight of example i

z is x with the mean and deviation of the training rows taken out. b is not penalised; two classes have one row of W.

The method is L-BFGS (Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.4), made quick by four things:

1.  Its initial matrix is nearly the inverse Hessian. For class k that Hessian is 1 + C Σᵢ sᵢ p(1 − p) z zᵀ; with the
    mean of p(1 − p) in its place it is diagonal in the principal axes of the features, which are found once for all.
    (Böhning, Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 44, 1992, does so with the bound ½.)
2.  The folds of a cross-validation are problems on the same rows with other weights (0 where held out): they are solved
    side by side, one matrix product for all of them, and every evaluation scores the held-out rows as well.
3.  Each C starts where the last one ended, and the problem on all rows from the mean of its folds.
4.  C is chosen in float32; the solution that is kept is computed in float64.

When is it done? f is 1-strongly convex in W, so f(W) − f* ≤ ½ ‖∂f/∂W‖² wherever ∂f/∂b = 0 (that bound is the duality
gap). A problem is solved when this gap is at most ``tol`` × f.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from tlbook import device

LEAST_DEVIATION = 0.1  # of a column, in those of its block; measured on five data sets (CHANGELOG)
UNSEEN = 1e4  # minus this is the intercept of a class without a training example: its probability is 0


class Standardised(NamedTuple):
    """Z = (X − mean) / deviation, and the least deviation of each column in the units of Z: a part of the rows is not
    enlarged beyond it either."""

    Z: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    least: torch.Tensor


def standardise(X, dtype=torch.float64, blocks=()):
    """Standardise the columns of X (N, D), none of which is enlarged more than ten times as much as its block.

    The deviation of a column counts as at least a tenth of its block's (root mean square). A unit of a network that is
    silent on all training rows but for traces would otherwise be divided by next to nothing, and drown all others on
    the first new example on which it speaks.

    Args:
        blocks: slices of the columns whose scales may be compared, such as the stages of a network; all unless given.

    Returns:
        Standardised: Z in ``dtype``, the others (D,) float64 on the CPU.
    """
    where = device.choose() if device.choose().type == "cuda" else torch.device("cpu")  # MPS has no float64

    def parts():  # there is no whole copy of X in float64 unless it is asked for
        return (torch.tensor(X[i : i + 4096], dtype=torch.float64) for i in range(0, len(X), 4096))

    mean = sum(part.sum(0) for part in parts()) / len(X)
    deviation = (sum((part - mean).square().sum(0) for part in parts()) / len(X)).sqrt()
    deviation[deviation <= 1e-12 * mean.abs()] = 0.0  # a constant feature becomes 0
    least = torch.ones_like(deviation)
    for block in blocks or [slice(None)]:
        varying = deviation[block][deviation[block] > 0]
        if len(varying):
            least[block] = LEAST_DEVIATION * varying.square().mean().sqrt()
    deviation = torch.maximum(deviation, least)
    Z = torch.empty(X.shape, dtype=dtype, device=where)
    for rows, part in zip(Z.split(4096), parts(), strict=True):
        rows.copy_((part - mean) / deviation)
    return Standardised(Z, mean, deviation, least / deviation)


def principal_axes(Z):
    """Return the axes (D, r), r = min(N, D) at most, and the mean square (r,) of the rows of Z (N, D) along each."""
    if len(Z) >= Z.shape[1]:
        values, axes = torch.linalg.eigh(Z.T @ Z)
    else:  # in float64, or the axes that hardly vary would not stand at right angles
        Z = Z.double()
        values, vectors = torch.linalg.eigh(Z @ Z.T)
        kept = values > 1e-6 * values[-1]
        values, axes = values[kept], Z.T @ (vectors[:, kept] / values[kept].sqrt())
    return axes, values.clamp_min(0) / len(Z)


class Problems:
    """P problems on the same rows Z (N, D) and labels y (N,) of K classes, with weights s (N, P) of their own.

    Each standardises Z once more, on its own rows: those where ``own`` (N, P) is True, whatever they weigh. The
    unknowns are one tensor (P, R, D + 1): W, then b, with R = K rows of W, or 1 for two classes.
    """

    def __init__(self, Z, y, s, own, K, least, axes=None):
        self.Z, self.y, self.K, self.R = Z, torch.as_tensor(y, device=Z.device), K, K if K > 2 else 1
        self.s = torch.as_tensor(s, device=Z.device).to(Z)
        self.axes, self.spread = (x.to(Z) for x in (principal_axes(Z) if axes is None else axes))

        # What each problem takes out of Z: the mean and deviation of its own rows.
        own = torch.as_tensor(own, device=Z.device).to(Z)
        own = own / own.sum(0).clamp_min(1)
        self.mean = own.T @ Z
        square = sum(w.T @ z.square() for w, z in zip(own.split(4096), Z.split(4096), strict=True))
        self.deviation = torch.maximum((square - self.mean.square()).clamp_min(0).sqrt(), least.to(Z))

    def start(self):
        """W = 0, b = 0: but a class that no row of a problem has is out of question from the start."""
        t = torch.zeros(self.s.shape[1], self.R, self.Z.shape[1] + 1).to(self.Z)
        unseen = (self.s.T @ F.one_hot(self.y, self.K).to(self.Z) == 0).to(self.Z)  # (P, K)
        t[:, :, -1] = -UNSEEN * unseen if self.R > 1 else UNSEEN * (unseen[:, :1] - unseen[:, 1:])
        return t

    def on_all_rows(self, t):
        """(P, R, D + 1): W and b as they act on Z itself."""
        U = t[:, :, :-1] / self.deviation[:, None]
        return torch.cat([U, t[:, :, -1:] - (U * self.mean[:, None]).sum(2, keepdim=True)], 2)

    def objective(self, t, C):
        """Return f (P,), its gradient (P, R, D + 1) and the probabilities (N, P, R)."""
        N, P = self.s.shape
        U = self.on_all_rows(t)
        logits = (self.Z @ U[:, :, :-1].flatten(0, 1).T).view(N, P, self.R) + U[:, :, -1]
        if self.R == 1:
            p, label = logits.sigmoid(), self.y[:, None, None].to(logits)
            loss, residual = (F.softplus(logits) - label * logits)[:, :, 0], p - label
        else:
            log_p, label = logits.log_softmax(2), self.y[:, None, None].expand(N, P, 1)
            p, loss = log_p.exp(), -log_p.gather(2, label)[:, :, 0]
            residual = p.scatter_add(2, label, -torch.ones_like(logits[:, :, :1]))

        residual *= C * self.s[:, :, None]
        db = residual.sum(0)
        dU = (residual.flatten(1).T @ self.Z).view(P, self.R, -1)
        dW = (dU - db[:, :, None] * self.mean[:, None]) / self.deviation[:, None] + t[:, :, :-1]
        value = C * (self.s * loss).sum(0, dtype=torch.float64) + 0.5 * t[:, :, :-1].square().sum((1, 2)).double()
        return value, torch.cat([dW, db[:, :, None]], 2), p

    def curvature(self, p, C):
        """C Σᵢ sᵢ p(1 − p) for each problem and row of W: (P, R)."""
        return C * (self.s[:, :, None] * (p - p * p)).sum(0) + 1e-6

    def precondition(self, g, h):
        """Divide the gradient g (P, R, D + 1) by 1 + h λ along the principal axes, and that of b by h."""
        dW = g[:, :, :-1].flatten(0, 1)
        along = dW @ self.axes
        rest = dW - along @ self.axes.T if self.axes.shape[0] > self.axes.shape[1] else 0  # h λ = 0 across the axes
        dW = rest + (along / (1 + h.flatten()[:, None] * self.spread)) @ self.axes.T
        dW = dW.view_as(g[:, :, :-1])
        return torch.cat([dW, g[:, :, -1:] / h[:, :, None]], 2)

    def minimise(self, t, C, tol, steps=1000, memory=10):
        """L-BFGS from t: the solution, f (P,) and the probabilities. A gap above 100 ``tol`` f is warned of."""
        value, g, p = self.objective(t, C)
        h, history = self.curvature(p, C), []
        noise = 10 * torch.finfo(t.dtype).eps  # of value, relative
        for _ in range(steps):
            gap = 0.5 * (_dot(g[:, :, :-1], g[:, :, :-1]) + (g[:, :, -1].square() / h).sum(1)).double()
            open_ = gap > tol * value
            if not open_.any():
                break

            # The direction: the inverse Hessian, as the last steps and changes of the gradient show it, times −g.
            d, coefficients = -g, []
            for step, change, curve in reversed(history):
                coefficients.append(_dot(step, d) / curve)
                d = d - _spread(coefficients[-1]) * change
            if history:
                step, change, curve = history[-1]
                d, unscaled = self.precondition(torch.cat([d, change]), torch.cat([h, h])).chunk(2)
                d = d * _spread(curve / _dot(change, unscaled).clamp_min(1e-30))
            else:
                d = self.precondition(d, h)
            for (step, change, curve), a in zip(history, reversed(coefficients), strict=True):
                d += step * _spread(a - _dot(change, d) / curve)

            # The step: 1, halved in the problems where f does not fall enough; 0 in those that are solved.
            slope, length = _dot(g, d).double(), open_.double()
            for _ in range(30):
                step = d * _spread(length.to(d))
                new_value, new_g, new_p = self.objective(t + step, C)
                high = ~(new_value <= value * (1 + noise) + 1e-4 * length * slope)
                if not high.any():
                    break
                length = torch.where(high, length / 2, length)
            else:
                break  # not even the smallest step helps: the numbers have no more digits
            change = new_g - g
            history = [*history, (step, change, _dot(step, change).clamp_min(1e-30))][-memory:]
            t, value, g, p, h = t + step, new_value, new_g, new_p, self.curvature(new_p, C)
        if (gap > 100 * tol * value).any():
            worst = int((gap / value).argmax())
            warnings.warn(
                f"logistic regression at C = {C:g} is not solved: gradient {g[worst].norm().item():.1g}, its objective "
                f"{value[worst].item():.6g} may be {gap[worst].item():.1g} too high; take a smaller C, or features "
                "without extreme values",
                RuntimeWarning,
                stacklevel=4,
            )
        return t, value, p


def fit_path(X, y, Cs, weight=None, K=None, *, tol=1e-8, axes=None, start=None, blocks=()):
    """Solve the problem for each C in turn, in float64, each from the last one's solution, when it is asked for.

    Args:
        X: (N, D). y: (N,) labels. Cs: the strengths, best in rising order. weight: (N,) or None. K: classes.
        tol: the largest gap f − f* that may be left, relative to f.
        axes: from `principal_axes`, where they are known. start: (R, D + 1), from `held_out_path`.
        blocks: as for `standardise`.

    Yields:
        (f, W (K or 1, D), b (K or 1,)) for each C: W and b act on X as it is. A class without an example of positive
        weight has W = 0 and b = −10⁴, so that its probability is 0.

    Warns:
        RuntimeWarning: a solution that is not reached, naming C, the gradient and the gap that are left.
    """
    Z, mean, deviation, least = standardise(X, blocks=blocks)
    every = np.ones((len(y), 1))
    s = every if weight is None else np.asarray(weight, dtype=np.float64)[:, None]
    problem = Problems(Z, y, s, every, K or int(y.max()) + 1, least, axes)
    t = problem.start()
    if start is not None:
        t = torch.where(t.abs() == UNSEEN, t, start[None].to(t))
    for C in Cs:
        t, value, _ = problem.minimise(t, C, tol)
        U = problem.on_all_rows(t)[0].cpu()
        W, b = U[:, :-1] / deviation, U[:, -1]
        if problem.R > 1:  # the same number added to every b changes nothing: let them sum to 0
            b = torch.where(b > -UNSEEN, b - b[b > -UNSEEN].mean(), b)
        yield value.item(), W.numpy(), (b - W @ mean).numpy()


def held_out_path(Z, y, Cs, parts, weight, K, least, *, axes=None, tol=1e-5):
    """Solve, for each C in turn, the problems that leave one part of the rows out, and predict these rows.

    Args:
        Z, least: (N, D) float32 and (D,), from `standardise`.
        parts: index arrays that share out the rows. Others: as in `fit_path`.

    Yields:
        (N, K) float64 probabilities of each row where it was held out, and (R, D + 1) the mean of the solutions.
    """
    held_out = np.empty(len(y), dtype=np.int64)
    for part, rows in enumerate(parts):
        held_out[rows] = part
    own = held_out[:, None] != np.arange(len(parts))
    problems = Problems(Z, y, np.asarray(weight, dtype=np.float64)[:, None] * own, own, K, least, axes)
    t = problems.start()
    for C in Cs:
        t, _, p = problems.minimise(t, C, tol)
        p = p.cpu().double().numpy()[np.arange(len(y)), held_out]
        seen = t[:, :, -1:].abs() < UNSEEN
        mean = (problems.on_all_rows(t) * seen).sum(0) / seen.sum(0).clamp_min(1)
        yield np.concatenate([1 - p, p], 1) if K == 2 else p, mean


def _dot(a, b):
    """(P,) the inner product of each problem's tensors."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def _spread(values):
    return values[:, None, None]

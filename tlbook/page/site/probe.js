"use strict";
// The linear probe, as tlbook.probes.linear_probe fits it: multinomial logistic regression on standardised features.
//
//     minimise over W, b:   f = C Σᵢ ℓ(W zᵢ + b, yᵢ) + ½ ‖W‖²        ℓ = cross-entropy
//
// It is convex, so that there is one answer, whichever program finds it. Two classes have one row of W: the second
// class against the first. C is the one of CS with the lowest log loss on rows that were held out, four parts in turn.

const CS = range(15).map((i) => 10 ** (-5 + i / 2)); // from a strong penalty to a weak one
const LEAST_DEVIATION = 0.1; // of a column, in those of all columns: no silent feature is enlarged without limit
const UNSEEN = 1e4; // minus this is the intercept of a class without an example: its probability is 0

/** Fit the probe. X: N rows of D numbers. y: labels. K: classes. groups: names, or null. C: null chooses it. */
function linearProbe(X, y, K, groups, C = null) {
  const path = C === null ? pathOfC(X, y, K, groups) : [];
  if (C === null) C = path.reduce((best, row) => (row.loss < best.loss ? row : best)).C;

  // All rows at that C. At the minimum the gradient is 0, and so W = C Σᵢ (1[k = yᵢ] − pᵢ) zᵢ.
  const { Z, mean, deviation } = standardise(X, range(X.length));
  const rows = range(X.length);
  const { b, p } = minimise(rotate(Z), y, K, rows, C, null, 1e-14);
  const W = range(K > 2 ? K : 1).map((r) => {
    const w = new Float64Array(mean.length);
    rows.forEach((i) => addTo(w, Z[i], -C * residual(p[i], y[i], K, r)));
    return w.map((value, j) => value / deviation[j]);
  });
  const intercept = W.map((w, r) => b[r] - dot(w, mean));
  return { C, path, W, b: intercept, predict: (x) => softmax(W.map((w, r) => dot(w, x) + intercept[r])) };
}

/** The log loss of held-out rows for each C in turn; it ends after two in a row that are worse. */
function pathOfC(X, y, K, groups) {
  const { parts, judged } = innerParts(y, groups);
  const { least } = standardise(X, range(X.length));
  const problems = range(Math.max(...parts) + 1).map((part) => {
    const own = range(X.length).filter((i) => parts[i] !== part);
    return { part, own, U: rotate(standardise(X, own, least).Z), t: null };
  });

  const path = [];
  let best = Infinity;
  let worse = 0;
  for (const C of CS) {
    let loss = 0;
    for (const problem of problems) {
      const found = minimise(problem.U, y, K, problem.own, C, problem.t, 1e-7);
      problem.t = found.t;
      for (const i of judged) if (parts[i] === problem.part) loss -= Math.log(Math.max(found.p[i][y[i]], 1e-12));
    }
    loss /= judged.length;
    path.push({ C, loss });
    worse = loss < best ? 0 : worse + 1;
    best = Math.min(best, loss);
    if (worse === 2) break;
  }
  return path;
}

/** The parts to hold out in turn, and the rows that can be judged: not those whose class is in no other part. */
function innerParts(y, groups) {
  const units = groups ? new Set(groups).size : Math.max(...range(Math.max(...y) + 1).map((k) => count(y, k)));
  const parts = stratifiedParts(y, groups, Math.min(4, units));
  const judged = range(y.length).filter((i) => y.some((k, j) => k === y[i] && parts[j] !== parts[i]));
  return { parts, judged };
}

const count = (values, value) => values.reduce((n, v) => n + (v === value), 0);

/** Z = (X − mean) / deviation, by the mean and deviation of the rows ``own``; ``least`` is what a deviation counts as. */
function standardise(X, own, least = null) {
  const D = X[0].length;
  const mean = new Float64Array(D);
  const deviation = new Float64Array(D);
  for (const i of own) for (let j = 0; j < D; j++) mean[j] += X[i][j] / own.length;
  for (const i of own) for (let j = 0; j < D; j++) deviation[j] += (X[i][j] - mean[j]) ** 2 / own.length;
  for (let j = 0; j < D; j++) {
    deviation[j] = Math.sqrt(deviation[j]);
    if (deviation[j] <= 1e-12 * Math.abs(mean[j])) deviation[j] = 0; // a constant feature becomes 0
  }
  if (!least) {
    const varying = deviation.filter((value) => value > 0);
    const floor = LEAST_DEVIATION * Math.sqrt(dot(varying, varying) / varying.length);
    least = deviation.map(() => (varying.length ? floor : 1));
  }
  for (let j = 0; j < D; j++) deviation[j] = Math.max(deviation[j], least[j]);
  const Z = X.map((x) => Float64Array.from(mean, (m, j) => (x[j] - m) / deviation[j]));
  return { Z, mean, deviation, least };
}

/** N rows of D numbers in coordinates in which they need N at most: all inner products stay, and so does the answer. */
function rotate(Z) {
  const N = Z.length;
  if (N >= Z[0].length) return Z;
  const U = Z.map(() => new Float64Array(N)); // Cholesky: U Uᵀ = Z Zᵀ
  for (let i = 0; i < N; i++) {
    for (let j = 0; j <= i; j++) {
      let rest = dot(Z[i], Z[j]);
      for (let k = 0; k < j; k++) rest -= U[i][k] * U[j][k];
      if (i === j) U[i][i] = rest > 1e-10 * dot(Z[i], Z[i]) ? Math.sqrt(rest) : 0;
      else U[i][j] = U[j][j] > 0 ? rest / U[j][j] : 0;
    }
  }
  return U;
}

/** Minimise f over the rows ``own`` by L-BFGS (Nocedal & Wright, 2006, algorithm 7.4), from t until f − f* ≤ tol · f.
 *  f is 1-strongly convex in W, so that f − f* ≤ ½ ‖∂f/∂W‖². Returns t = (W, b), b, and p of every row. */
function minimise(U, y, K, own, C, t, tol) {
  const R = K > 2 ? K : 1;
  t = t || startAt(U[0].length, y, K, own);
  let { value, g, h } = objective(U, y, K, own, C, t);
  const history = [];
  for (let step = 0; step < 2000 && gapOf(g, h, R) > tol * value; step++) {
    const d = direction(g, history);
    const slope = dot(d, g);
    let length = 1;
    let next;
    let moved;
    for (;; length /= 2) {
      moved = t.map((a, j) => a + length * d[j]);
      next = objective(U, y, K, own, C, moved);
      if (next.value <= value + 1e-4 * length * slope || length < 1e-9) break;
    }
    if (length < 1e-9) break; // the numbers have no more digits
    const s = d.map((a) => length * a);
    const change = next.g.map((a, j) => a - g[j]);
    const curve = dot(s, change);
    if (curve > 0) history.push({ s, change, curve });
    if (history.length > 10) history.shift();
    [t, value, g, h] = [moved, next.value, next.g, next.h];
  }
  return { t, b: t.slice(-R), p: U.map((u) => softmax(logits(u, t, R))) };
}

/** W = 0 and b = 0; but a class that no row has is out of question from the start. */
function startAt(D, y, K, own) {
  const R = K > 2 ? K : 1;
  const seen = range(K).map((k) => own.some((i) => y[i] === k));
  const t = new Float64Array(R * (D + 1));
  range(R).forEach((r) => {
    if (R > 1) t[R * D + r] = seen[r] ? 0 : -UNSEEN;
    else t[D] = UNSEEN * (!seen[0] - !seen[1]);
  });
  return t;
}

/** f, its gradient g, and h = C Σ p(1 − p), the curvature in each b. */
function objective(U, y, K, own, C, t) {
  const R = K > 2 ? K : 1;
  const D = U[0].length;
  const g = new Float64Array(t.length);
  const h = new Float64Array(R).fill(1e-6);
  let value = 0;
  for (let j = 0; j < R * D; j++) {
    g[j] = t[j];
    value += 0.5 * t[j] * t[j];
  }
  for (const i of own) {
    const p = softmax(logits(U[i], t, R));
    value -= C * Math.log(Math.max(p[y[i]], 1e-300));
    for (let r = 0; r < R; r++) {
      const error = C * residual(p, y[i], K, r);
      addTo(g.subarray(r * D, (r + 1) * D), U[i], error);
      g[R * D + r] += error;
      h[r] += C * p[K > 2 ? r : 1] * (1 - p[K > 2 ? r : 1]);
    }
  }
  return { value, g, h };
}

/** Where to go from the gradient g: the inverse Hessian, as the last steps show it, times −g. */
function direction(g, history) {
  const d = g.map((a) => -a);
  const shares = [];
  for (const { s, change, curve } of [...history].reverse()) {
    const share = dot(s, d) / curve;
    shares.unshift(share);
    addTo(d, change, -share);
  }
  const last = history.at(-1);
  const scale = last ? last.curve / dot(last.change, last.change) : 1 / (1 + Math.sqrt(dot(g, g)));
  for (let j = 0; j < d.length; j++) d[j] *= scale;
  history.forEach(({ s, change, curve }, i) => addTo(d, s, shares[i] - dot(change, d) / curve));
  return d;
}

function gapOf(g, h, R) {
  const W = g.subarray(0, g.length - R);
  let gap = 0.5 * dot(W, W);
  for (let r = 0; r < R; r++) gap += (0.5 * g[g.length - R + r] ** 2) / h[r];
  return gap;
}

/** ∂ℓ/∂logit of row r of W: the probability, less 1 for the true class. */
function residual(p, label, K, r) {
  const k = K > 2 ? r : 1;
  return p[k] - (label === k);
}

function logits(u, t, R) {
  const D = u.length;
  return range(R).map((r) => dot(u, t.subarray(r * D, (r + 1) * D)) + t[R * D + r]);
}

/** K probabilities; a single logit is that of the second class against the first. */
function softmax(values) {
  const z = values.length === 1 ? [0, values[0]] : values;
  const most = Math.max(...z);
  const e = z.map((a) => Math.exp(a - most));
  const sum = e.reduce((a, b) => a + b);
  return e.map((a) => a / sum);
}

function dot(a, b) {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j] * b[j];
  return sum;
}

function addTo(a, b, factor) {
  for (let j = 0; j < a.length; j++) a[j] += factor * b[j];
}

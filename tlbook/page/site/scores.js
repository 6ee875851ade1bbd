"use strict";
// How good is it, how sure is that, and what would be reached without looking? As tlbook.evaluation, for the page.

const RESAMPLES = 2000;

/** How many parts: each holds out a picture (or a group) of every class, up to twenty times; less often where many. */
function partsFor(y, K, groups) {
  const units = range(K).map((k) => {
    const rows = range(y.length).filter((i) => y[i] === k);
    return groups ? new Set(rows.map((i) => groups[i])).size : rows.length;
  });
  const most = y.length <= 100 ? 20 : y.length <= 400 ? 10 : 5;
  return Math.min(most, ...units);
}

/** Predict each row by a probe that was fitted, and whose C was chosen, without its part: N rows of K probabilities.
 *
 *  A part holds rows of every class. If one picture alone were left out, the others would hold fewer of its class, and
 *  a probe that has learned nothing would guess against it each time: an AUC near 0 instead of ½. */
async function heldOut(X, y, K, groups, progress) {
  const parts = partsFor(y, K, groups);
  const part = stratifiedParts(y, groups, parts);
  const p = new Array(y.length);
  for (let fold = 0; fold < parts; fold++) {
    await progress(fold, parts);
    const rows = range(y.length).filter((i) => part[i] !== fold);
    const own = groups && rows.map((i) => groups[i]);
    const probe = linearProbe(rows.map((i) => X[i]), rows.map((i) => y[i]), K, own);
    for (let i = 0; i < y.length; i++) if (part[i] === fold) p[i] = probe.predict(X[i]);
  }
  return { p, parts };
}

/** AUC and accuracy with 95 % intervals, by bootstrap over whole groups; and of answering the most frequent class. */
function evaluate(p, y, K, groups) {
  const names = groups ? [...new Set(groups)] : range(y.length);
  const unit = groups ? groups.map((g) => names.indexOf(g)) : range(y.length);
  const once = scoresOf(p, y, K, new Array(y.length).fill(1));
  const random = new Generator();
  const draws = range(RESAMPLES).map(() => {
    const times = new Array(names.length).fill(0);
    for (let i = 0; i < names.length; i++) times[random.upTo(names.length - 1)]++;
    return scoresOf(p, y, K, unit.map((u) => times[u]));
  });
  const sizes = names.map((_, u) => count(unit, u));
  const effective = y.length ** 2 / dot(sizes, sizes); // groups of one size that vary as much (Kish, 1965)
  const interval = (metric) => intervalOf(draws.map((d) => d[metric]), effective);
  return {
    auc: once.auc,
    accuracy: once.accuracy,
    interval: { auc: interval("auc"), accuracy: interval("accuracy") },
    majority: Math.max(...range(K).map((k) => count(y, k))) / y.length,
  };
}

/** Accuracy and AUC (of more than two classes: the mean of each against the others) with weights w. */
function scoresOf(p, y, K, w) {
  const right = p.map((row, i) => w[i] * (row.indexOf(Math.max(...row)) === y[i]));
  const classes = K === 2 ? [1] : range(K);
  const aucs = classes.map((k) => aucOf(p.map((row) => row[k]), y.map((label) => label === k), w));
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  return { accuracy: sum(right) / sum(w), auc: sum(aucs) / aucs.length };
}

/** P(score of a positive > score of a negative) + ½ P(equal). */
function aucOf(score, positive, w) {
  const order = range(score.length).sort((a, b) => score[a] - score[b]);
  let [below, ahead, positives] = [0, 0, 0];
  for (let i = 0; i < order.length; ) {
    let [up, down, j] = [0, 0, i];
    for (; j < order.length && score[order[j]] === score[order[i]]; j++) {
      if (positive[order[j]]) up += w[order[j]];
      else down += w[order[j]];
    }
    ahead += up * (below + down / 2);
    [below, positives, i] = [below + down, positives + up, j];
  }
  return ahead / (positives * below);
}

/** The expanded percentile interval (Hesterberg, 2015): wider where n groups are few. */
function intervalOf(draws, n) {
  const sorted = draws.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length || n <= 1) return [NaN, NaN];
  const tail = normalBelow(Math.sqrt(n / (n - 1)) * studentQuantile(0.025, n - 1));
  const quantile = (q) => {
    const at = q * (sorted.length - 1);
    const low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  };
  return [quantile(tail), quantile(1 - tail)];
}

/** The integral of f from a to b (Simpson's rule). */
function integral(f, a, b, steps = 2000) {
  const width = (b - a) / steps;
  const inner = range(steps - 1).reduce((sum, i) => sum + (i % 2 ? 2 : 4) * f(a + (i + 1) * width), 0);
  return (width / 3) * (f(a) + inner + f(b));
}

const normalBelow = (z) => 0.5 + integral((x) => Math.exp(-x * x / 2), 0, z) / Math.sqrt(2 * Math.PI);

/** The t below which Student's distribution with ``freedom`` degrees has the share q < ½; t = tan(angle) √freedom. */
function studentQuantile(q, freedom) {
  const density = (angle) => Math.max(0, Math.cos(angle)) ** (freedom - 1);
  const whole = integral(density, -Math.PI / 2, Math.PI / 2);
  let [low, high] = [-Math.PI / 2, 0];
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (integral(density, -Math.PI / 2, middle) < q * whole) low = middle;
    else high = middle;
  }
  return Math.tan((low + high) / 2) * Math.sqrt(freedom);
}

/** Pairs [i, j, correlation] of pictures that look nearly the same: saved again, shrunk, a little brighter. */
function lookAlikes(prints) {
  const pairs = [];
  for (let i = 0; i < prints.length; i++) {
    for (let j = 0; j < i; j++) {
      const correlation = dot(prints[i], prints[j]);
      if (correlation >= 0.99) pairs.push([j, i, correlation]);
    }
  }
  return pairs.sort((a, b) => b[2] - a[2]);
}

/** A group for each of N pictures, in which those that look alike are together. */
function groupsOfLookAlikes(N, pairs) {
  const group = range(N);
  for (const [i, j] of pairs) {
    const [from, to] = [group[j], group[i]];
    group.forEach((g, k) => (group[k] = g === from ? to : g));
  }
  return group.map((g) => String(g).padStart(6, "0"));
}

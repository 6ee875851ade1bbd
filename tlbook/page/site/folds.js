"use strict";
// Dividing pictures into parts, as tlbook.splits does with the same seed: the same pictures are held out together, and
// so the same C is chosen here and there.

const LOW_64 = (1n << 64n) - 1n;
const LOW_128 = (1n << 128n) - 1n;

/** numpy.random.default_rng(0): PCG64 (O'Neill, 2014), 32 bits at a time. */
class Generator {
  constructor() {
    this.state = 35399562948360463058890781895381311971n; // what numpy makes of the seed 0
    this.increment = 87136372517582989555478159403783844777n;
    this.spare = null;
  }

  next32() {
    if (this.spare !== null) {
      const value = this.spare;
      this.spare = null;
      return value;
    }
    this.state = (this.state * 0x2360ed051fc65da44385df649fccf645n + this.increment) & LOW_128;
    const x = (this.state >> 64n) ^ (this.state & LOW_64);
    const turn = this.state >> 122n;
    const value = ((x >> turn) | (x << (64n - turn))) & LOW_64;
    this.spare = Number(value >> 32n);
    return Number(value & 0xffffffffn);
  }

  /** A whole number in 0 … most, each equally likely: bits are drawn until they are not too many. */
  upTo(most) {
    const mask = 2 ** (32 - Math.clz32(most)) - 1;
    for (;;) {
      const value = (this.next32() & mask) >>> 0;
      if (value <= most) return value;
    }
  }

  /** The values in another order. */
  permutation(values) {
    const shuffled = [...values];
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = this.upTo(i);
      [shuffled[i], shuffled[j]] = [shuffled[j], shuffled[i]];
    }
    return shuffled;
  }
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

/** The part 0 … parts − 1 of each of N examples: of every class about as many in each, and groups whole. */
function stratifiedParts(labels, groups, parts) {
  const random = new Generator();
  let edge = 0;
  const edges = range(parts - 1).map(() => (edge += 1 / parts));
  const partAt = (place) => edges.filter((e) => e < place).length;
  if (groups) return groupParts(labels, groups, parts, partAt, random);

  const part = new Array(labels.length);
  const rowsOf = [...new Set(labels)]
    .sort((a, b) => a - b)
    .map((k) => random.permutation(range(labels.length).filter((i) => labels[i] === k)));
  for (const rows of rowsOf) rows.forEach((row, i) => (part[row] = partAt((i + 0.5) / rows.length)));
  if (new Set(part).size < parts) rowsOf.flat().forEach((row, i) => (part[row] = i % parts)); // very small classes
  return part;
}

/** As stratifiedParts, for groups: the best of a hundred assignments at random. */
function groupParts(labels, groups, parts, partAt, random) {
  const names = [...new Set(groups)].sort();
  const K = Math.max(...labels) + 1;
  const group = groups.map((name) => names.indexOf(name));
  const counts = names.map(() => new Array(K).fill(0));
  labels.forEach((k, i) => counts[group[i]][k]++);
  const sizes = counts.map((row) => row.reduce((a, b) => a + b));
  const wanted = range(K).map((k) => counts.reduce((sum, row) => sum + row[k], 0) / parts);

  let least = Infinity;
  let best = null;
  for (let draw = 0; draw < 100; draw++) {
    let passed = 0;
    const partOf = new Array(names.length);
    for (const g of random.permutation(range(names.length))) {
      passed += sizes[g];
      partOf[g] = partAt((passed - sizes[g] / 2) / labels.length);
    }
    const got = range(parts).map(() => new Array(K).fill(0));
    partOf.forEach((p, g) => counts[g].forEach((n, k) => (got[p][k] += n)));
    const miss = addAsNumpy(got.flatMap((row) => row.map((n, k) => Math.abs(n - wanted[k]))));
    if (miss < least && new Set(partOf).size === parts) [least, best] = [miss, partOf];
  }
  if (best) return group.map((g) => best[g]);
  return group.map((g) => largestFirst(sizes, parts, labels.length, random)[g]);
}

/** The sum of up to 128 numbers in numpy's order, eight side by side: so that equal assignments tie here and there. */
function addAsNumpy(values) {
  const whole = values.length - (values.length % 8);
  if (!whole) return values.reduce((a, b) => a + b, 0);
  const r = values.slice(0, 8);
  for (let i = 8; i < whole; i++) r[i % 8] += values[i];
  const sum = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
  return values.slice(whole).reduce((a, b) => a + b, sum);
}

/** The part of each group where groups are so few, or so large, that each draw left a part empty. */
function largestFirst(sizes, parts, N, random) {
  const lacking = new Array(parts).fill(N / parts);
  const taken = new Array(parts).fill(false);
  const partOf = new Array(sizes.length);
  const order = random.permutation(range(sizes.length)).sort((a, b) => sizes[b] - sizes[a]);
  order.forEach((g, i) => {
    const mustFill = sizes.length - i <= taken.filter((t) => !t).length;
    const open = range(parts).filter((p) => !(mustFill && taken[p]));
    const p = open.reduce((a, b) => (lacking[b] > lacking[a] ? b : a));
    partOf[g] = p;
    taken[p] = true;
    lacking[p] -= sizes[g];
  });
  return partOf;
}

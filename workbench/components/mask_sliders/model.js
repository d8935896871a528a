// Which heads a mask keeps at a p, an α and thresholds, and what is then left: the numbers of pare.width.heads,
// pare.width.neuron_count and pare.width.unit_cost, so that they can follow a slider. Heads are numbered
// block * heads + head; 1 = kept.

/** K = max(floor, ceil(H·(1 − p))) heads per block, in the decimals of p that were typed. */
export function keptCount(heads, ratio, floor) {
  const [removed, scale] = decimal(ratio);
  return Math.max(floor, Number((BigInt(heads) * (scale - removed) + scale - 1n) / scale));
}

/** floor(F·(1 − p)) neurons to a multiple, at least one multiple; p = 0 keeps all. */
export function keptNeurons(neurons, ratio, multiple) {
  const [removed, scale] = decimal(ratio);
  if (removed === 0n) return neurons;
  const left = Number((BigInt(neurons) * (scale - removed)) / scale);
  return Math.max(multiple, Math.floor(left / multiple) * multiple);
}

/** A number from 0.000001 up as a fraction of whole numbers: digits over a power of ten. */
function decimal(number) {
  const [whole, part = ""] = String(number).split(".");
  return [BigInt(whole + part), 10n ** BigInt(part.length)];
}

/** α·s for temporal heads, s / α where s is below 0 (Eq. 5). */
export function protect(scores, roles, alpha) {
  return Float64Array.from(scores, (score, i) => {
    if (roles[i] !== TEMPORAL) return score;
    return score < 0 ? score / alpha : score * alpha;
  });
}

/** The highest scores first; a tie goes to the lower index. */
function ranked(scores, among) {
  return [...among].sort((a, b) => (scores[a] < scores[b] ? 1 : scores[a] > scores[b] ? -1 : a - b));
}

/** The `count` highest scores of every block. */
export function selectHeads(scores, blocks, heads, count) {
  const keep = new Uint8Array(blocks * heads);
  for (let block = 0; block < blocks; block += 1) {
    const here = Array.from({ length: heads }, (_, head) => block * heads + head);
    for (const i of ranked(scores, here).slice(0, count)) keep[i] = 1;
  }
  return keep;
}

/** The `total` highest scores of all blocks, at least `floor` in each. */
export function selectGlobal(scores, blocks, heads, total, floor) {
  const keep = selectHeads(scores, blocks, heads, floor);
  const rest = Array.from(keep.keys()).filter((i) => !keep[i]);
  for (const i of ranked(scores, rest).slice(0, total - blocks * floor)) keep[i] = 1;
  return keep;
}

/** The mask of `given` at these settings: kept heads, counts and sizes. */
export function maskAt(given, { thresholds, ratio, alpha }) {
  const { blocks, heads } = given;
  const count = keptCount(heads, ratio, given.floor);
  const choose = (scores) => (given.allocation === "uniform"
    ? selectHeads(scores, blocks, heads, count)
    : selectGlobal(scores, blocks, heads, blocks * count, given.floor));
  const unprotected = choose(given.scores), cross = choose(given.cross);
  const roles = given.ratios ? classify(given.ratios, thresholds) : null;
  const self = roles && given.protects ? choose(protect(given.scores, roles, alpha)) : unprotected;
  const neurons = given.pruneNeurons ? keptNeurons(given.neurons, ratio, given.multiple) : given.neurons;
  return {
    self,
    cross,
    neurons,
    removedByRole: roles && countRoles(roles.filter((_, i) => !self[i])),
    flipped: roles ? self.map((kept, i) => kept ^ unprotected[i]) : new Uint8Array(blocks * heads),
    sizes: given.costs.map((cost) => sizeOf(cost, sum(self), sum(cross), blocks * neurons)),
  };
}

/** fixed + Σ units · cost of one: whole numbers below 2⁵³, so exact. */
export function sizeOf(cost, selfHeads, crossHeads, neurons) {
  return cost.fixed + selfHeads * cost.self_head + crossHeads * cost.cross_head + neurons * cost.neuron;
}

export function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Fewest and most kept in a block, as one number where they are alike: "7" or "5 to 9". */
export function span(keep, blocks, heads) {
  const counts = Array.from({ length: blocks }, (_, block) => sum(keep.subarray(block * heads, (block + 1) * heads)));
  const [low, high] = [Math.min(...counts), Math.max(...counts)];
  return low === high ? `${low}` : `${low} to ${high}`;
}

/** What the mask keeps and removes, in words. */
export function describeMask(given, mask) {
  const [self, cross] = [mask.self, mask.cross].map((keep) => span(keep, given.blocks, given.heads));
  const gone = mask.self.length - sum(mask.self);
  const byRole = mask.removedByRole && ROLES.map(({ word }, role) => `${mask.removedByRole[role]} ${word}`).join(", ");
  const kept = `Keeps ${self} of ${given.heads} self-attention and ${cross} of ${given.heads} cross-attention heads`;
  const neurons = given.pruneNeurons ? `, and ${group(mask.neurons)} of ${group(given.neurons)} neurons,` : "";
  const flips = sum(mask.flipped);
  return `${kept}${neurons} in each of ${given.blocks} blocks. `
    + `Removes ${gone} self-attention heads${byRole ? `: ${byRole}` : ""}`
    + (flips ? `; α keeps ${flips / 2} in place of as many others.` : ".");
}

/** 1,234,567 */
export function group(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A size in the unit that reads well: parameters in B or M, operations in TFLOP, GFLOP or MFLOP. */
export function formatSize(kind, size) {
  const units = kind === "flops"
    ? [[1e12, "TFLOP", 1], [1e9, "GFLOP", 2], [1e6, "MFLOP", 1]]
    : [[1e9, "B", 3], [1e6, "M", 3], [1, "", 0]];
  const [unit, name, digits] = units.find(([least]) => size >= least) ?? units.at(-1);
  const [whole, part] = (size / unit).toFixed(digits).split(".");
  return `${group(whole)}${part ? `.${part}` : ""}${name && ` ${name}`}`;
}

/** A value as near as the slider's range allows, on its grid of `step`; null for what is no number. */
export function onGrid(value, [low, high], step) {
  if (!Number.isFinite(value)) return null;
  return clamp(Math.round(Math.round(value / step) * step * 1e6) / 1e6, low, high);
}

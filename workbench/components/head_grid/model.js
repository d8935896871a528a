// Pure functions of the head grid: no element, no canvas, no state. Cells are numbered block * heads + head.

export const ROLES = [
  { letter: "S", word: "spatial", colour: "#0072B2" },
  { letter: "M", word: "mixed", colour: "#999999" },
  { letter: "T", word: "temporal", colour: "#D55E00" },
];
export const SPATIAL = 0, MIXED = 1, TEMPORAL = 2, NOT_CAPTURED = 3;
export const FLAG_UNIFORM = 1, FLAG_FIRST_FRAME_SINK = 2, FLAG_FLIPPED = 4;
export const STEP = 0.01, FINE_STEP = 0.001, PAGE_STEP = 0.05, MIN_GAP = 0.01;

/** Spatial where r > τs, temporal where r < τt, mixed between; NaN is not captured. In double precision, as in Python. */
export function roleOf(ratio, tauS, tauT) {
  if (Number.isNaN(ratio)) return NOT_CAPTURED;
  return ratio > tauS ? SPATIAL : ratio < tauT ? TEMPORAL : MIXED;
}

export function classify(ratios, [tauS, tauT]) {
  return Uint8Array.from(ratios, (ratio) => roleOf(ratio, tauS, tauT));
}

/** How many heads are spatial, mixed, temporal, not captured. */
export function countRoles(roles) {
  const counts = [0, 0, 0, 0];
  for (const role of roles) counts[role] += 1;
  return counts;
}

/** Heads whose role changes when one threshold moves by at most delta: |r - τs| <= delta or |r - τt| <= delta. */
export function countFlips(ratios, [tauS, tauT], delta) {
  let flips = 0;
  for (const ratio of ratios) flips += Math.abs(ratio - tauS) <= delta || Math.abs(ratio - tauT) <= delta ? 1 : 0;
  return flips;
}

/** Heads per bin of 0..1 and role: counts[bin * 3 + role]. */
export function histogram(ratios, roles, bins) {
  const counts = new Uint32Array(bins * 3);
  for (let i = 0; i < ratios.length; i += 1) {
    if (roles[i] === NOT_CAPTURED) continue;
    counts[clamp(Math.floor(ratios[i] * bins), 0, bins - 1) * 3 + roles[i]] += 1;
  }
  return counts;
}

export function highestBin(counts) {
  let highest = 0;
  for (let i = 0; i < counts.length; i += 3) highest = Math.max(highest, counts[i] + counts[i + 1] + counts[i + 2]);
  return highest;
}

/** A few round numbers from 0 to at least `highest`, for a count axis. */
export function countTicks(highest) {
  const rough = Math.max(1, highest) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough));
  return Array.from({ length: Math.ceil(Math.max(1, highest) / step) + 1 }, (_, i) => i * step);
}

/** The lowest and highest value that one threshold may take beside the other; which: 0 is τs, 1 is τt. */
export function thresholdRange([tauS, tauT], which) {
  const range = which === 0 ? [Math.min(tauT + MIN_GAP, 1), 1] : [0, Math.max(tauS - MIN_GAP, 0)];
  return range.map((value) => Math.round(value * 1000) / 1000);
}

/** Both thresholds with one of them moved as near to `value` as order and gap allow, on a grid of `step`. */
export function moveThreshold(thresholds, which, value, step = STEP) {
  const [low, high] = thresholdRange(thresholds, which);
  const moved = [...thresholds];
  moved[which] = Math.round(clamp(Math.round(value / step) * step, low, high) * 1000) / 1000;
  return moved;
}

/** Thresholds after a key on the handle `which`, or null when the key means nothing there. */
export function thresholdsAfterKey(thresholds, which, key, fine = false) {
  const step = fine ? FINE_STEP : STEP;
  const steps = {
    ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step,
    PageDown: -PAGE_STEP, PageUp: PAGE_STEP, Home: -1, End: 1,
  };
  if (!(key in steps)) return null;
  return moveThreshold(thresholds, which, thresholds[which] + steps[key], FINE_STEP);
}

/** "block 3, head 7 · ratio 0.41 · mixed" */
export function describeCell(block, head, ratio, role, flags = 0, removed = 0, crossed = "removed") {
  const parts = [`block ${block}, head ${head}`];
  if (role === NOT_CAPTURED) parts.push("not captured");
  else parts.push(`ratio ${ratio.toFixed(2)}`, ROLES[role].word);
  if (flags & FLAG_UNIFORM) parts.push("uniform");
  if (flags & FLAG_FIRST_FRAME_SINK) parts.push("first-frame sink");
  if (removed) parts.push(crossed);
  if (flags & FLAG_FLIPPED) parts.push(removed ? "kept without α" : "removed without α");
  return parts.join(" · ");
}

/** "3 roles flip if a threshold moves by 0.02" */
export function describeFlips(count, delta) {
  return `${count} ${count === 1 ? "role flips" : "roles flip"} if a threshold moves by ${delta}`;
}

/** At least two decimals, three when the value needs them. */
export function formatThreshold(value) {
  return Math.abs(value * 100 - Math.round(value * 100)) < 1e-6 ? value.toFixed(2) : value.toFixed(3);
}

/** Sizes in CSS pixels: every cell is cellWidth x cellHeight, the first one starts at (left, top). */
export function gridLayout(available, blocks, heads, maxCells = 560) {
  const left = 42, top = 40;
  const cellWidth = clamp(Math.floor((available - left - 2) / heads), 5, 46);
  const cellHeight = clamp(Math.floor(maxCells / blocks), 5, Math.min(cellWidth, 36));
  const side = Math.min(cellWidth, cellHeight);
  return {
    left, top, blocks, heads, cellWidth, cellHeight,
    gap: side >= 24 ? 2 : side >= 8 ? 1 : 0,
    fontSize: side >= 13 ? clamp(Math.round(side * 0.62), 9, 15) : 0,
    width: left + cellWidth * heads + 2,
    height: top + cellHeight * blocks + 2,
  };
}

/** The cell under a point, or null. */
export function cellAt(layout, x, y) {
  const head = Math.floor((x - layout.left) / layout.cellWidth);
  const block = Math.floor((y - layout.top) / layout.cellHeight);
  return block >= 0 && block < layout.blocks && head >= 0 && head < layout.heads ? [block, head] : null;
}

/** How far inside its role a ratio lies: 0 at the threshold (mixed: at either), 1 at the far end (mixed: in the middle). */
export function depthInRole(ratio, role, [tauS, tauT]) {
  if (role === SPATIAL) return clamp((ratio - tauS) / Math.max(1 - tauS, 1e-6), 0, 1);
  if (role === TEMPORAL) return clamp((tauT - ratio) / Math.max(tauT, 1e-6), 0, 1);
  return clamp(Math.min(ratio - tauT, tauS - ratio) / Math.max((tauS - tauT) / 2, 1e-6), 0, 1);
}

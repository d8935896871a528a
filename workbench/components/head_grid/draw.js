// Drawing on canvases: everything is a function of (context, layout, state, theme); the grid's cells come from their own layer.

const BINS = 50;
export const PLOT = { left: 42, right: 22, top: 50, bottom: 60, height: 232 };

export function drawGrid(context, layout, state, theme, cells) {
  drawGridLabels(context, layout, state, theme);
  cells.update(layout, state, theme);
  cells.copyTo(context);
  if (state.hover) ring(context, cellBox(layout, ...state.hover), theme.text, theme.background, 1.5);
  if (state.pinned) ring(context, cellBox(layout, ...state.pinned), theme.text, theme.background, 2.5);
  if (state.focused) ring(context, cellBox(layout, ...state.focus), theme.primary, theme.background, 2);
}

function drawGridLabels(context, layout, state, theme) {
  const { left, top, cellWidth, cellHeight, blocks, heads, gap } = layout;
  const marked = state.hover ?? (state.focused ? state.focus : null) ?? state.pinned;
  const everyHead = labelEvery(cellWidth, 18), everyBlock = labelEvery(cellHeight, 13);
  const label = (text, x, y, strong) => {
    context.font = `${strong ? 600 : 400} 12px ${theme.font}`;
    context.fillStyle = strong ? theme.text : theme.muted;
    context.fillText(text, x, y);
  };
  context.textBaseline = "middle";
  context.textAlign = "center";
  for (let head = 0; head < heads; head += 1) {
    const strong = marked !== null && marked[1] === head;
    // A marked label replaces its neighbours' where they would touch.
    const crowded = marked !== null && !strong && Math.abs(marked[1] - head) * cellWidth < 18;
    if (strong || (head % everyHead === 0 && !crowded)) label(head, left + (head + 0.5) * cellWidth - gap / 2, top - 10, strong);
  }
  context.textAlign = "right";
  for (let block = 0; block < blocks; block += 1) {
    const strong = marked !== null && marked[0] === block;
    const crowded = marked !== null && !strong && Math.abs(marked[0] - block) * cellHeight < 13;
    if (strong || (block % everyBlock === 0 && !crowded)) label(state.firstBlock + block, left - 8, top + (block + 0.5) * cellHeight - gap / 2, strong);
  }
  label("block", left - 8, top - 10, false);
  context.textAlign = "left";
  label(state.ordered ? "heads by ratio, lowest first" : "head", left, 10, false);
}

/** Pixel of a ratio on the histogram's axis. */
export function ratioToX(ratio, width) {
  return PLOT.left + ratio * (width - PLOT.left - PLOT.right);
}

export function xToRatio(x, width) {
  return (x - PLOT.left) / (width - PLOT.left - PLOT.right);
}

export function drawHistogram(context, width, state, theme) {
  const bottom = PLOT.height - PLOT.bottom, tall = bottom - PLOT.top;
  const counts = histogram(state.ratio, state.roles, BINS);
  const ticks = countTicks(highestBin(counts));
  const y = (count) => bottom - (count / ticks.at(-1)) * tall;
  const x = (ratio) => ratioToX(ratio, width);
  context.font = `12px ${theme.font}`;
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.lineWidth = 1;
  for (const tick of ticks) {
    context.fillStyle = theme.line;
    context.fillRect(x(0), Math.round(y(tick)), x(1) - x(0), 1);
    context.fillStyle = theme.muted;
    context.fillText(tick, x(0) - 8, y(tick));
  }
  context.fillText("heads", x(0) - 8, PLOT.top - 20);
  const barWidth = (x(1) - x(0)) / BINS;
  for (let bin = 0; bin < BINS; bin += 1) {
    let below = 0;
    for (const role of [TEMPORAL, MIXED, SPATIAL]) {
      const count = counts[bin * 3 + role];
      if (!count) continue;
      context.fillStyle = ROLES[role].colour;
      context.fillRect(x(0) + bin * barWidth + 0.5, y(below + count), Math.max(1, barWidth - 1), y(below) - y(below + count));
      below += count;
    }
  }
  drawAxis(context, x, bottom, state, theme);
  for (const threshold of state.thresholds) {
    context.fillStyle = theme.text;
    context.fillRect(Math.round(x(threshold)) - 1, 26, 2, bottom - 26);
  }
  drawUniform(context, x, bottom, width, state, theme);
}

function drawAxis(context, x, bottom, state, theme) {
  const [tauS, tauT] = state.thresholds;
  const bands = [[0, tauT, TEMPORAL], [tauT, tauS, MIXED], [tauS, 1, SPATIAL]];
  for (const [from, to, role] of bands) {
    context.fillStyle = ROLES[role].colour;
    context.fillRect(x(from), bottom + 1, x(to) - x(from), 4);
  }
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = theme.muted;
  for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) context.fillText(tick === 0 || tick === 1 ? tick : tick.toFixed(1), x(tick), bottom + 27);
  context.fillText("intra-slice ratio r", (x(0) + x(1)) / 2, bottom + 48);
  for (const [cell, filled] of [[state.pinned, true], [state.hover, false]]) {
    const ratio = cell ? state.ratio[cell[0] * state.heads + cell[1]] : NaN;
    if (!Number.isNaN(ratio)) marker(context, x(clamp(ratio, 0, 1)), bottom + 7, filled, theme);
  }
}

function marker(context, x, y, filled, theme) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - 5, y + 9);
  context.lineTo(x + 5, y + 9);
  context.closePath();
  context.fillStyle = filled ? theme.text : theme.background;
  context.strokeStyle = filled ? theme.background : theme.text;
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
}

function drawUniform(context, x, bottom, width, state, theme) {
  const at = Math.round(x(state.uniform)) + 0.5;
  context.strokeStyle = theme.muted;
  context.lineWidth = 1.5;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(at, PLOT.top - 14);
  context.lineTo(at, bottom);
  context.stroke();
  context.setLineDash([]);
  const text = `uniform 1/${state.numFrames}`;
  const start = at - 6 - context.measureText(text).width, end = 2 * at - start;
  // A threshold's line through the label would strike it out.
  const struck = start > 0 && state.thresholds.some((threshold) => x(threshold) > at && x(threshold) < end + 3);
  const right = end < width - PLOT.right && !struck;
  context.textAlign = right ? "left" : "right";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  context.strokeStyle = theme.background;
  context.strokeText(text, at + (right ? 6 : -6), PLOT.top - 9);
  context.fillStyle = theme.muted;
  context.fillText(text, at + (right ? 6 : -6), PLOT.top - 9);
}

// The map: cells by block and timestep, the mean of every timestep above, of every block to the right.

export const MARGIN = { left: 42, top: 72, gap: 14, right: 118, bottom: 40 };

export function mapLayout(available, blocks, steps, maxCells = 420) {
  const { left, top, gap, right, bottom } = MARGIN;
  const cellWidth = clamp(Math.floor((available - left - gap - right) / steps), 3, 64);
  const cellHeight = clamp(Math.floor(maxCells / blocks), 6, 30);
  const side = Math.min(cellWidth, cellHeight);
  const across = cellWidth * steps, down = cellHeight * blocks;
  return {
    blocks, steps, cellWidth, cellHeight, across, down, left, top,
    space: side >= 20 ? 2 : side >= 8 ? 1 : 0,
    marginal: left + across + gap,
    width: left + across + gap + right,
    height: top + down + bottom,
  };
}

/** [block, step] under a point; step is null beside the cells, where a whole block is meant; null above and below. */
export function placeAt(layout, x, y) {
  const block = Math.floor((y - layout.top) / layout.cellHeight);
  if (block < 0 || block >= layout.blocks || x < 0 || x > layout.width) return null;
  const step = Math.floor((x - layout.left) / layout.cellWidth);
  return [block, step >= 0 && step < layout.steps ? step : null];
}

export function drawMap(context, layout, state, theme) {
  const { cellWidth, cellHeight, space, left, top } = layout;
  const [low, high] = state.limits;
  for (let block = 0; block < layout.blocks; block += 1) {
    for (let step = 0; step < layout.steps; step += 1) {
      const box = {
        x: left + step * cellWidth, y: top + block * cellHeight, width: cellWidth - space, height: cellHeight - space,
      };
      const value = state.values[step * layout.blocks + block];
      if (Number.isNaN(value)) {
        hatch(context, box, theme);
        continue;
      }
      context.fillStyle = paletteColour(state.palette, (value - low) / (high - low || 1));
      context.fillRect(box.x, box.y, box.width, box.height);
    }
  }
  drawLabels(context, layout, state, theme);
  drawBlockMeans(context, layout, state, theme);
  drawStepMeans(context, layout, state, theme);
  const row = (block) => ({ x: left, y: top + block * cellHeight, width: layout.across - space, height: cellHeight - space });
  if (state.hover) ring(context, row(state.hover[0]), theme.text, theme.background, 1.5);
  if (state.chosen !== null) ring(context, row(state.chosen), theme.text, theme.background, 2.5);
  if (state.focused) {
    const box = row(state.focus[0]);
    ring(context, { ...box, x: left + state.focus[1] * cellWidth, width: cellWidth - space }, theme.primary, theme.background, 2);
  }
}

function drawLabels(context, layout, state, theme) {
  const { left, top, cellWidth, cellHeight, down, space } = layout;
  const everyBlock = labelEvery(cellHeight, 13), everyStep = labelEvery(cellWidth, 30);
  const [block, step] = state.hover ?? (state.focused ? state.focus : [state.chosen, null]);
  for (let i = 0; i < layout.blocks; i += 1) {
    const crowded = block !== null && i !== block && Math.abs(i - block) * cellHeight < 13;
    if (i !== block && (i % everyBlock !== 0 || crowded)) continue;
    text(context, i, left - 8, top + (i + 0.5) * cellHeight - space / 2, theme, { align: "right", strong: i === block });
  }
  for (let i = 0; i < layout.steps; i += 1) {
    const crowded = step !== null && i !== step && Math.abs(i - step) * cellWidth < 30;
    if (i !== step && (i % everyStep !== 0 || crowded)) continue;
    const x = left + (i + 0.5) * cellWidth - space / 2;
    text(context, state.timesteps[i].toFixed(0), x, top + down + 11, theme, { strong: i === step });
  }
  text(context, "block", left - 8, top - 12, theme, { align: "right" });
  text(context, "timestep t", left + layout.across / 2, top + down + 30, theme);
}

/** A mean with its interval, on a scale from `low` to `high` of the marginal axis. */
function whisker(context, place, mean, low, high, theme) {
  if (Number.isNaN(mean)) return;
  context.strokeStyle = theme.muted;
  context.lineWidth = 1.5;
  if (!Number.isNaN(low)) {
    context.beginPath();
    context.moveTo(...place(low));
    context.lineTo(...place(high));
    context.stroke();
  }
  context.fillStyle = theme.text;
  context.beginPath();
  context.arc(...place(mean), 3, 0, 2 * Math.PI);
  context.fill();
}

function drawBlockMeans(context, layout, state, theme) {
  const { top, cellHeight, down, space, marginal } = layout;
  const [low, high] = state.marginalLimits, wide = MARGIN.right - 16;
  const x = (value) => marginal + ((value - low) / (high - low || 1)) * wide;
  context.fillStyle = theme.line;
  for (const end of [low, high]) context.fillRect(Math.round(x(end)), top, 1, down);
  state.byBlock.mean.forEach((mean, block) => {
    const y = top + (block + 0.5) * cellHeight - space / 2;
    whisker(context, (value) => [x(value), y], mean, state.byBlock.low[block], state.byBlock.high[block], theme);
  });
  text(context, formatNumber(low), x(low), top + down + 11, theme, { align: "left" });
  text(context, formatNumber(high), x(high), top + down + 11, theme, { align: "right" });
  text(context, "mean of steps", marginal + wide / 2, top + down + 30, theme);
}

function drawStepMeans(context, layout, state, theme) {
  const { left, top, cellWidth, across, space } = layout;
  const [low, high] = state.marginalLimits, base = top - 10, tall = base - 24;
  const y = (value) => base - ((value - low) / (high - low || 1)) * tall;
  context.fillStyle = theme.line;
  for (const end of [low, high]) context.fillRect(left, Math.round(y(end)), across, 1);
  state.byStep.mean.forEach((mean, step) => {
    const x = left + (step + 0.5) * cellWidth - space / 2;
    whisker(context, (value) => [x, y(value)], mean, state.byStep.low[step], state.byStep.high[step], theme);
  });
  text(context, formatNumber(high), left + across + 4, y(high), theme, { align: "left" });
  text(context, formatNumber(low), left + across + 4, y(low), theme, { align: "left" });
  text(context, "mean of blocks", left, 9, theme, { align: "left" });
}

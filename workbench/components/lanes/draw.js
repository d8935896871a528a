// Lanes of blocks by step; above them, on the same axis of timesteps, what every block changed.

export const MARGIN = { left: 42, top: 24, gap: 34, right: 12, bottom: 40 };
// Okabe-Ito vermillion: what differs, and what was turned over by hand. Shape tells them apart, not colour alone.
const MARK = "#D55E00";

export function lanesLayout(available, blocks, steps, withChange, maxCells = 420) {
  const { left, top, gap, right, bottom } = MARGIN;
  const cellWidth = clamp(Math.floor((available - left - right) / steps), 4, 64);
  const cellHeight = clamp(Math.floor(maxCells / blocks), 7, 26);
  const changeHeight = withChange ? clamp(Math.floor(maxCells / 2 / blocks), 3, 14) : 0;
  const side = Math.min(cellWidth, cellHeight);
  const across = cellWidth * steps, mapped = changeHeight * blocks, down = cellHeight * blocks;
  const lanesTop = withChange ? top + mapped + gap : top;
  return {
    blocks, steps, cellWidth, cellHeight, changeHeight, across, mapped, down, left, mapTop: top, top: lanesTop,
    space: side >= 20 ? 3 : side >= 8 ? 2 : 1,
    width: left + across + right,
    height: lanesTop + down + bottom,
  };
}

/** [block, step] under a point of the lanes or of the map above; null elsewhere. */
export function cellAt(layout, x, y) {
  const step = Math.floor((x - layout.left) / layout.cellWidth);
  if (step < 0 || step >= layout.steps) return null;
  const inMap = layout.changeHeight > 0 && y < layout.mapTop + layout.mapped;
  const block = inMap
    ? Math.floor((y - layout.mapTop) / layout.changeHeight)
    : Math.floor((y - layout.top) / layout.cellHeight);
  return block >= 0 && block < layout.blocks ? [block, step, inMap] : null;
}

/** Always-on blocks cannot be turned over. */
export function mayTurn(block, blocks) {
  return block > 0 && block < blocks - 1;
}

function shade(value, [low, high], palette) {
  return paletteColour(palette, high > low ? (value - low) / (high - low) : 0.5);
}

export function drawLanes(context, layout, state, theme) {
  if (layout.changeHeight) drawChange(context, layout, state, theme);
  const { left, top, cellWidth, cellHeight, space } = layout;
  const box = (block, step) => ({
    x: left + step * cellWidth, y: top + block * cellHeight, width: cellWidth - space, height: cellHeight - space,
  });
  for (let step = 0; step < layout.steps; step += 1) {
    for (let block = 0; block < layout.blocks; block += 1) {
      const i = step * layout.blocks + block;
      const always = !mayTurn(block, layout.blocks);
      drawDecision(context, box(block, step), state.ran[i] > 0, shade(state.score[i], state.scoreLimits, state.scorePalette), always, theme);
      if (state.edited[i]) drawEdited(context, box(block, step), theme);
    }
  }
  state.differs.forEach((differs, i) => {
    if (differs) outline(context, box(i % layout.blocks, Math.floor(i / layout.blocks)), MARK, theme.background, space);
  });
  drawLabels(context, layout, state, theme);
  const place = state.hover ?? (state.focused ? state.focus : null);
  if (place) ring(context, box(place[0], place[1]), state.focused ? theme.primary : theme.text, theme.background, 2);
}

/** Filled where it ran, an outline where it was skipped. The always-on blocks are half as tall: no decision was made. */
function drawDecision(context, { x, y, width, height }, ran, colour, always, theme) {
  if (always) {
    context.fillStyle = theme.hatch;
    context.fillRect(x, y + height / 4, width, height / 2);
    return;
  }
  if (ran) {
    context.fillStyle = colour;
    context.fillRect(x, y, width, height);
    return;
  }
  // A dark score on a dark page still has an edge.
  context.lineWidth = 1;
  context.strokeStyle = theme.muted;
  context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
  const line = Math.min(width, height) >= 12 ? 3 : Math.min(width, height) >= 7 ? 2 : 1;
  context.lineWidth = line;
  context.strokeStyle = colour;
  context.strokeRect(x + line / 2, y + line / 2, width - line, height - line);
}

function drawEdited(context, { x, y, width, height }, theme) {
  const radius = Math.max(2, Math.min(width, height) * 0.22);
  context.beginPath();
  context.arc(x + width / 2, y + height / 2, radius + 1.5, 0, 2 * Math.PI);
  context.fillStyle = theme.background;
  context.fill();
  context.beginPath();
  context.arc(x + width / 2, y + height / 2, radius, 0, 2 * Math.PI);
  context.fillStyle = MARK;
  context.fill();
}

function outline(context, { x, y, width, height }, colour, background, space) {
  const wide = space >= 2;
  if (wide) {
    context.strokeStyle = background;
    context.lineWidth = 4;
    context.strokeRect(x, y, width, height);
  }
  context.strokeStyle = colour;
  context.lineWidth = wide ? 2 : 1;
  context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
}

function drawChange(context, layout, state, theme) {
  const { left, mapTop, cellWidth, changeHeight } = layout;
  for (let step = 0; step < layout.steps; step += 1) {
    for (let block = 0; block < layout.blocks; block += 1) {
      const value = state.change[step * layout.blocks + block];
      const box = { x: left + step * cellWidth, y: mapTop + block * changeHeight, width: cellWidth, height: changeHeight };
      if (Number.isNaN(value)) {
        hatch(context, box, theme);
        continue;
      }
      context.fillStyle = shade(value, state.changeLimits, state.changePalette);
      context.fillRect(box.x, box.y, box.width, box.height);
    }
  }
  const place = state.hover ?? (state.focused ? state.focus : null);
  if (place) {
    const box = { x: left + place[1] * cellWidth, y: mapTop + place[0] * changeHeight, width: cellWidth, height: changeHeight };
    ring(context, box, theme.text, theme.background, 1.5);
  }
  text(context, "what every block changes", left, mapTop - 12, theme, { align: "left" });
}

function drawLabels(context, layout, state, theme) {
  const { left, top, mapTop, cellWidth, cellHeight, changeHeight, down, space } = layout;
  const everyBlock = labelEvery(cellHeight, 13), everyStep = labelEvery(cellWidth, 30), everyCount = labelEvery(cellWidth, 18);
  const [block, step] = state.hover ?? (state.focused ? state.focus : [null, null]);
  const blockLabels = (firstY, height, every) => {
    for (let i = 0; i < layout.blocks; i += 1) {
      const crowded = block !== null && i !== block && Math.abs(i - block) * height < 13;
      if (i !== block && (i % every !== 0 || crowded)) continue;
      text(context, i, left - 8, firstY + (i + 0.5) * height, theme, { align: "right", strong: i === block });
    }
  };
  blockLabels(top - space / 2, cellHeight, everyBlock);
  if (changeHeight) blockLabels(mapTop, changeHeight, labelEvery(changeHeight, 13));
  for (let i = 0; i < layout.steps; i += 1) {
    const x = left + (i + 0.5) * cellWidth - space / 2;
    if (i === step || (i % everyCount === 0 && (step === null || Math.abs(i - step) * cellWidth >= 18))) {
      text(context, state.counts[i], x, top - 11, theme, { strong: i === step });
    }
    const crowded = step !== null && i !== step && Math.abs(i - step) * cellWidth < 30;
    if (i !== step && (i % everyStep !== 0 || crowded)) continue;
    text(context, state.timesteps[i].toFixed(0), x, top + down + 11, theme, { strong: i === step });
  }
  text(context, "ran", left - 8, top - 11, theme, { align: "right" });
  text(context, "timestep t", left + layout.across / 2, top + down + 30, theme);
}

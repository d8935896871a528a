// The grid: one cell per block and head, its colour by B − A around zero, its sign in words, what is absent hatched.

export const MARGIN = { left: 42, top: 42 };
export const ROLES = ["", "spatial", "mixed", "temporal"];

export function gridLayout(available, blocks, heads, maxCells = 400) {
  const { left, top } = MARGIN;
  const cellWidth = clamp(Math.floor((available - left - 4) / heads), 6, 62);
  const cellHeight = clamp(Math.floor(maxCells / blocks), 8, 36);
  const side = Math.min(cellWidth, cellHeight);
  return {
    blocks, heads, cellWidth, cellHeight, left, top, across: cellWidth * heads,
    space: side >= 20 ? 2 : 1,
    width: left + cellWidth * heads + 4,
    height: top + cellHeight * blocks + 4,
  };
}

/** [block, head] under a point, or null. */
export function headAt(layout, x, y) {
  const block = Math.floor((y - layout.top) / layout.cellHeight);
  const head = Math.floor((x - layout.left) / layout.cellWidth);
  return block >= 0 && block < layout.blocks && head >= 0 && head < layout.heads ? [block, head] : null;
}

/** A number with its sign, a minus as wide as the plus. */
export function signed(value) {
  return Number.isNaN(value) ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "±") + formatNumber(Math.abs(value));
}

/** What fits into a cell: the difference, else its sign where it is clear, else nothing. */
export function cellWords(difference, clear, cellWidth, cellHeight) {
  if (Number.isNaN(difference) || cellHeight < 12) return "";
  if (cellWidth >= 40) {
    const size = Math.abs(difference).toFixed(2).replace(/^0/, "");
    return size === ".00" ? size : (difference < 0 ? "−" : "+") + size;
  }
  return clear && cellWidth >= 10 ? (difference < 0 ? "−" : "+") : "";
}

export function drawGrid(context, layout, state, theme) {
  const { cellWidth, cellHeight, space, left, top, heads } = layout;
  const box = (block, head) => ({
    x: left + head * cellWidth, y: top + block * cellHeight, width: cellWidth - space, height: cellHeight - space,
  });
  for (let index = 0; index < layout.blocks * heads; index += 1) {
    const cell = box(Math.floor(index / heads), index % heads), value = state.difference[index];
    if (Number.isNaN(value)) {
      hatch(context, cell, theme);
      continue;
    }
    const colour = paletteColour(state.palette, (value / state.limit + 1) / 2);
    context.fillStyle = colour;
    context.fillRect(cell.x, cell.y, cell.width, cell.height);
    const letter = letterColour(colour);
    if (state.roleA[index] !== state.roleB[index]) {
      context.strokeStyle = letter;
      context.lineWidth = cellWidth >= 20 ? 2 : 1;
      context.strokeRect(cell.x + 1.5, cell.y + 1.5, cell.width - 3, cell.height - 3);
    }
    if (state.clear[index] && (cellHeight < 12 || cellWidth < 10)) drawSign(context, cell, value, letter);
    const words = cellWords(value, state.clear[index], cellWidth, cellHeight);
    if (!words) continue;
    const strong = Boolean(state.clear[index]);
    text(context, words, cell.x + cell.width / 2, cell.y + cell.height / 2, { ...theme, text: letter, muted: letter }, { strong });
  }
  drawLabels(context, layout, state, theme);
  const shown = [[state.hover, theme.text, 1.5], [state.pinned, theme.text, 2.5], [state.focused ? state.focus : null, theme.primary, 2]];
  for (const [place, colour, width] of shown) if (place) ring(context, box(...place), colour, theme.background, width);
}

/** The sign of a clear difference in a cell that is too small for letters. */
function drawSign(context, { x, y, width, height }, value, colour) {
  const side = Math.max(3, Math.min(width, height) - 4), middle = [x + width / 2, y + height / 2];
  context.fillStyle = colour;
  context.fillRect(middle[0] - side / 2, middle[1] - 0.5, side, 1);
  if (value > 0) context.fillRect(middle[0] - 0.5, middle[1] - side / 2, 1, side);
}

function drawLabels(context, layout, state, theme) {
  const { left, top, cellWidth, cellHeight, space } = layout;
  const [block, head] = state.hover ?? (state.focused ? state.focus : state.pinned) ?? [null, null];
  const axis = (count, size, needed, chosen, draw) => {
    const every = labelEvery(size, needed);
    for (let i = 0; i < count; i += 1) {
      const crowded = chosen !== null && i !== chosen && Math.abs(i - chosen) * size < needed;
      if (i === chosen || (i % every === 0 && !crowded)) draw(i, i === chosen);
    }
  };
  axis(layout.blocks, cellHeight, 13, block, (i, strong) =>
    text(context, i, left - 8, top + (i + 0.5) * cellHeight - space / 2, theme, { align: "right", strong }));
  axis(layout.heads, cellWidth, 18, head, (i, strong) =>
    text(context, i, left + (i + 0.5) * cellWidth - space / 2, top - 10, theme, { strong }));
  text(context, "block", left - 8, top - 10, theme, { align: "right" });
  text(context, "head", left + layout.across / 2, top - 30, theme);
}

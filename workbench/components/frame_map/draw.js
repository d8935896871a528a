// The map of one head: query frames down, key frames across, a colour scale beside it, and the marked frame's row and column.

const EDGE = { left: 42, top: 24, scale: 64, bottom: 4 };

export function frameMapLayout(available, frames, most = 210) {
  const room = Math.min(available - EDGE.left - EDGE.scale, most);
  const size = Math.max(3, Math.floor(room / frames));
  const across = size * frames;
  return {
    frames, size, across, left: EDGE.left, top: EDGE.top, space: size >= 14 ? 1 : 0,
    width: EDGE.left + across + EDGE.scale, height: EDGE.top + across + EDGE.bottom,
  };
}

/** [query frame, key frame] under a point, or null. */
export function framesAt({ left, top, size, frames }, x, y) {
  const [query, key] = [Math.floor((y - top) / size), Math.floor((x - left) / size)];
  return query >= 0 && query < frames && key >= 0 && key < frames ? [query, key] : null;
}

export function drawFrameMap(context, layout, state, theme) {
  const { left, top, size, space, frames } = layout;
  for (let i = 0; i < frames * frames; i += 1) {
    const box = { x: left + (i % frames) * size, y: top + Math.floor(i / frames) * size, width: size - space, height: size - space };
    if (Number.isNaN(state.values[i])) hatch(context, box, theme);
    else {
      context.fillStyle = paletteColour(state.palette, state.values[i] / state.high);
      context.fillRect(box.x, box.y, box.width, box.height);
    }
  }
  drawNumbers(context, layout, state, theme);
  drawScale(context, layout, state, theme);
  const row = (frame) => ({ x: left, y: top + frame * size, width: layout.across - space, height: size - space });
  const cell = ([query, key]) => ({ ...row(query), x: left + key * size, width: size - space });
  if (state.frame !== null) {
    const { x, y, width, height } = row(state.frame);
    ring(context, { x, y, width, height }, theme.text, theme.background, 2);
    ring(context, { x: left + state.frame * size, y: top, width: height, height: width }, theme.text, theme.background, 1);
  }
  if (state.hover) ring(context, cell(state.hover), theme.text, theme.background, 1.5);
  if (state.focused) ring(context, cell(state.focus), theme.primary, theme.background, 2);
}

function drawNumbers(context, { left, top, size, frames }, { frame }, theme) {
  const every = labelEvery(size, 15);
  for (let i = 0; i < frames; i += 1) {
    const strong = i === frame;
    if (!strong && (i % every !== 0 || (frame !== null && Math.abs(i - frame) * size < 15))) continue;
    text(context, i, left + (i + 0.5) * size, top - 9, theme, { strong });
    text(context, i, left - 8, top + (i + 0.5) * size, theme, { align: "right", strong });
  }
}

function drawScale(context, { left, top, across }, { palette, high }, theme) {
  const x = left + across + 12, gradient = context.createLinearGradient(0, top + across, 0, top);
  palette.forEach((colour, i) => gradient.addColorStop(i / (palette.length - 1), colour));
  context.fillStyle = gradient;
  context.fillRect(x, top, 10, across);
  text(context, formatNumber(high), x + 15, top + 6, theme, { align: "left" });
  text(context, "0", x + 15, top + across - 6, theme, { align: "left" });
}

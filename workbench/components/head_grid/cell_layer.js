// The cells of the grid on a canvas of their own: those that look as they did stay, since a dragged threshold changes few.

export class CellLayer {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.setting = null;
  }

  /** Draw the cells whose role, marks or shade changed; all of them when sizes, colours or fonts did. */
  update(layout, state, theme) {
    const scale = window.devicePixelRatio || 1;
    const setting = JSON.stringify([layout, theme, scale, document.fonts.status]);
    let context = this.canvas.getContext("2d");
    // Edges between two pixels belong to both cells: neither can be cleared alone.
    if (setting !== this.setting || !Number.isInteger(scale)) {
      context = prepare(this.canvas, layout.width, layout.height);
      this.looks = new Int32Array(state.ratio.length).fill(-1);
      this.setting = setting;
    }
    context.font = `600 ${layout.fontSize}px ${theme.font}`;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const colours = new Map();
    for (let i = 0; i < state.ratio.length; i += 1) {
      const role = state.roles[i], removed = Boolean(state.removed[i]), level = cellLevel(state, i);
      const paint = (role * 2 + removed) * 16 + level, look = paint * 8 + state.flags[i];
      if (look === this.looks[i]) continue;
      this.looks[i] = look;
      // Contrast is too dear to weigh for every cell, and few are different.
      if (!colours.has(paint)) colours.set(paint, cellColours(role, removed, level, theme));
      const box = cellBox(layout, Math.floor(i / layout.heads), i % layout.heads);
      context.clearRect(box.x, box.y, box.width, box.height);
      drawCell(context, box, layout, { role, removed, flags: state.flags[i], ...colours.get(paint) }, theme);
    }
  }

  /** Pixel by pixel, whatever the scale. */
  copyTo(context) {
    context.save();
    context.resetTransform();
    context.drawImage(this.canvas, 0, 0);
    context.restore();
  }
}

function cellBox(layout, block, head) {
  const { left, top, cellWidth, cellHeight, gap } = layout;
  // Rows lie one pixel further apart than columns: a block reads as one line of heads.
  const rowGap = gap ? gap + 1 : 0;
  return { x: left + head * cellWidth, y: top + block * cellHeight, width: cellWidth - gap, height: cellHeight - rowGap };
}

/** How strong a cell's colour is, 0 to 15. */
function cellLevel({ ratio, roles, thresholds, shade }, i) {
  return shade && roles[i] !== NOT_CAPTURED ? Math.round(15 * depthInRole(ratio[i], roles[i], thresholds)) : 15;
}

function cellColours(role, removed, level, theme) {
  if (role === NOT_CAPTURED) return {};
  const fill = mix(ROLES[role].colour, theme.background, removed ? 0.3 : 0.55 + (0.45 * level) / 15);
  return { fill, ink: removed ? theme.text : letterColour(fill) };
}

/** Nothing leaves the box: a cell is drawn again without its neighbours. */
function drawCell(context, box, layout, { role, removed, flags, fill, ink }, theme) {
  if (role === NOT_CAPTURED) {
    hatch(context, box, theme);
    return;
  }
  context.fillStyle = fill;
  if (layout.gap > 1) {
    roundedPath(context, box, 3);
    context.fill();
  } else {
    context.fillRect(box.x, box.y, box.width, box.height);
  }
  if (removed) cross(context, box, theme);
  if (flags & ~FLAG_FLIPPED) outline(context, box, flags, ink);
  if (flags & FLAG_FLIPPED) flipped(context, box, theme);
  if (layout.fontSize) {
    context.fillStyle = ink;
    context.fillText(ROLES[role].letter, box.x + box.width / 2, box.y + box.height / 2 + layout.fontSize * 0.36);
  }
}

function cross(context, { x, y, width, height }, theme) {
  context.strokeStyle = theme.muted;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x + 2, y + 2);
  context.lineTo(x + width - 2, y + height - 2);
  context.moveTo(x + width - 2, y + 2);
  context.lineTo(x + 2, y + height - 2);
  context.stroke();
}

/** Uniform heads dashed, first-frame sinks in one line, both: the line. */
function outline(context, { x, y, width, height }, flags, colour) {
  context.strokeStyle = colour;
  context.lineWidth = width > 20 ? 1.5 : 1;
  context.setLineDash(flags & FLAG_FIRST_FRAME_SINK ? [] : [2, 2]);
  const inset = width > 20 ? 3 : 1.5;
  context.strokeRect(x + inset, y + inset, width - 2 * inset, height - 2 * inset);
  context.setLineDash([]);
}

/** A frame around the cell with its upper right corner filled. */
function flipped(context, { x, y, width, height }, theme) {
  const line = width > 20 ? 3 : 1.5, corner = Math.min(width, height) * 0.42;
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  for (const [colour, size] of [[theme.background, line + 2], [theme.text, line]]) {
    context.strokeStyle = colour;
    context.lineWidth = size;
    context.strokeRect(x + line / 2, y + line / 2, width - line, height - line);
  }
  context.fillStyle = theme.text;
  context.beginPath();
  context.moveTo(x + width - corner, y);
  context.lineTo(x + width, y);
  context.lineTo(x + width, y + corner);
  context.fill();
  context.restore();
}

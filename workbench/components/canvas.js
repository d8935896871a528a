// What the canvases of all components share: colours of the page's theme, sizes, keys, and a few strokes.

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** Two or three figures, no trailing zeros. */
export function formatNumber(value) {
  return Number.isNaN(value) ? "–" : String(Number(value.toPrecision(3)));
}

/** Label every index, or every 2nd, 5th, 10th …: the first spacing that leaves `needed` pixels per label. */
export function labelEvery(cellSize, needed) {
  return [1, 2, 5, 10, 20, 50, 100].find((every) => every * cellSize >= needed) ?? 200;
}

/** The cell [row, column] after a key, or null when the key does not move. */
export function cellAfterKey([row, column], key, rows, columns, control = false) {
  const moves = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    PageUp: [row - 5, column], PageDown: [row + 5, column],
    Home: [control ? 0 : row, 0], End: [control ? rows - 1 : row, columns - 1],
  };
  if (!(key in moves)) return null;
  const [toRow, toColumn] = moves[key];
  return [clamp(toRow, 0, rows - 1), clamp(toColumn, 0, columns - 1)];
}

export function parseColour(text) {
  const hex = /^#([0-9a-f]{3,8})$/i.exec(text.trim());
  if (hex) {
    const digits = hex[1].length < 6 ? [...hex[1]].map((digit) => digit + digit).join("") : hex[1];
    return [0, 2, 4].map((start) => parseInt(digits.slice(start, start + 2), 16));
  }
  const numbers = text.match(/[\d.]+/g);
  return numbers && numbers.length >= 3 ? numbers.slice(0, 3).map(Number) : [128, 128, 128];
}

/** A part `share` of the first colour over the second, as rgb(). */
export function mix(over, under, share) {
  const a = parseColour(over), b = parseColour(under);
  return `rgb(${a.map((value, i) => Math.round(value * share + b[i] * (1 - share))).join(", ")})`;
}

/** Relative luminance (WCAG 2). */
export function luminance(colour) {
  const [r, g, b] = parseColour(colour).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

export function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/** The colour at `share` 0..1 of a palette of evenly spaced colours. */
export function paletteColour(palette, share) {
  const place = clamp(share, 0, 1) * (palette.length - 1);
  const low = Math.min(Math.floor(place), palette.length - 2);
  return mix(palette[low + 1], palette[low], place - low);
}

/** Black or white, whichever reads better on that colour. */
export function letterColour(background) {
  return contrast("#000000", background) > contrast("#ffffff", background) ? "#000000" : "#ffffff";
}

/** Colours and fonts of the page's theme, from the --st-* properties. */
export function readTheme(element) {
  const style = getComputedStyle(element);
  const property = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const background = property("--st-background-color", "#ffffff");
  const text = property("--st-text-color", "#31333f");
  return {
    background,
    text,
    muted: mix(text, background, 0.72),
    line: mix(text, background, 0.16),
    hatch: mix(text, background, 0.34),
    primary: property("--st-primary-color", "#0072B2"),
    font: property("--st-font", "sans-serif"),
  };
}

/** Give a canvas its size in CSS pixels at the screen's pixel ratio; returns a cleared context in CSS pixels. */
export function prepare(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  const [deviceWidth, deviceHeight] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== deviceWidth || canvas.height !== deviceHeight) {
    canvas.width = deviceWidth;
    canvas.height = deviceHeight;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function roundedPath(context, { x, y, width, height }, radius) {
  context.beginPath();
  context.roundRect(x, y, width, height, radius);
}

function hatch(context, { x, y, width, height }, theme) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = theme.hatch;
  context.lineWidth = 1;
  context.beginPath();
  for (let start = x - height; start < x + width; start += 5) {
    context.moveTo(start, y + height);
    context.lineTo(start + height, y);
  }
  context.stroke();
  context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  context.restore();
}

function ring(context, { x, y, width, height }, colour, background, lineWidth) {
  for (const [stroke, size] of [[background, lineWidth + 2.5], [colour, lineWidth]]) {
    context.strokeStyle = stroke;
    context.lineWidth = size;
    roundedPath(context, { x: x - 0.5, y: y - 0.5, width: width + 1, height: height + 1 }, width > 20 ? 4 : 2);
    context.stroke();
  }
}

function text(context, words, x, y, theme, { align = "center", strong = false } = {}) {
  context.font = `${strong ? 600 : 400} 12px ${theme.font}`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.fillStyle = strong ? theme.text : theme.muted;
  context.fillText(words, x, y);
}

// Drawing: the pictures of a view from the frames in hand, and the strip of numbers with its cursor.

/** Colours of a strip's lines, readable in both themes; the dash tells them apart without colour. */
export const LINES = [
  { light: "#0072B2", dark: "#56B4E9", dash: [] },
  { light: "#B45309", dark: "#E69F00", dash: [5, 3] },
  { light: "#007A5A", dark: "#33C59A", dash: [2, 2] },
  { light: "#8F4A78", dark: "#CC79A7", dash: [7, 2, 2, 2] },
];
const GAIN_DOUBLINGS = 2;

export function lineColour(index, theme) {
  return LINES[index % LINES.length][luminance(theme.background) > 0.4 ? "light" : "dark"];
}

/** Copy a frame onto the visible canvas at the video's own size; the browser enlarges it. */
export function drawPicture(canvas, frame) {
  sized(canvas, frame).drawImage(frame, 0, 0, canvas.width, canvas.height);
}

/** The first frame left of the wipe's line, the second right of it. */
export function drawWipe(canvas, first, second, share) {
  const context = sized(canvas, first);
  context.drawImage(second, 0, 0, canvas.width, canvas.height);
  const cut = Math.round(canvas.width * share);
  if (cut > 0) context.drawImage(first, 0, 0, cut, canvas.height, 0, 0, cut, canvas.height);
}

/** |first − second| of every channel, times 4 (black: the same). */
export function drawDifference(canvas, first, second) {
  const context = sized(canvas, first);
  context.drawImage(first, 0, 0);
  context.globalCompositeOperation = "difference";
  context.drawImage(second, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter";
  // Each pass adds the picture to itself.
  for (let pass = 0; pass < GAIN_DOUBLINGS; pass += 1) context.drawImage(canvas, 0, 0);
  context.globalCompositeOperation = "source-over";
}

function sized(canvas, frame) {
  if (canvas.width !== frame.width || canvas.height !== frame.height) {
    canvas.width = frame.width;
    canvas.height = frame.height;
  }
  return canvas.getContext("2d");
}

export function stripHeight(state) {
  return (state.lines.length ? STRIP.chart : STRIP.bare) + (state.latent ? STRIP.band : 0);
}

export function drawStrip(context, width, state, theme) {
  const { frames, frame, latent } = state;
  const chart = state.lines.length ? STRIP.chart : STRIP.bare;
  const x = (at) => frameToX(at, frames, width);
  context.fillStyle = theme.line;
  context.fillRect(x(0), chart - 1, x(frames) - x(0), 1);
  if (latent) drawLatentFrames(context, x, chart, state, theme);
  context.fillStyle = mix(theme.primary, theme.background, 0.3);
  context.fillRect(x(frame), 0, Math.max(2, x(frame + 1) - x(frame)), chart);
  if (state.lines.length) drawLines(context, x, chart, state, theme);
  context.fillStyle = theme.text;
  context.fillRect(Math.round((x(frame) + x(frame + 1)) / 2) - 1, 0, 2, chart);
}

function drawLatentFrames(context, x, top, { latent, frame, frames }, theme) {
  const starts = latent.map((one, i) => (i === 0 || latent[i - 1] !== one ? i : -1)).filter((i) => i >= 0);
  context.font = `11px ${theme.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  starts.forEach((start, i) => {
    const end = starts[i + 1] ?? frames, left = x(start), wide = x(end) - left;
    const chosen = latent[frame] === latent[start];
    context.fillStyle = chosen ? theme.text : mix(theme.text, theme.background, i % 2 ? 0.08 : 0.16);
    context.fillRect(left, top + 2, Math.max(1, wide - 1), STRIP.band - 4);
    if (wide < 16 && !(chosen && wide >= 12)) return;
    context.fillStyle = chosen ? theme.background : theme.text;
    context.fillText(latent[start], left + wide / 2, top + STRIP.band / 2);
  });
}

function drawLines(context, x, chart, { lines, limits, frame }, theme) {
  const [low, high] = limits, top = 6, tall = chart - top - 4;
  const y = (value) => (Number.isFinite(value) ? top + (1 - (value - low) / (high - low)) * tall : 2);
  const middle = (at) => (x(at) + x(at + 1)) / 2;
  lines.forEach((values, i) => {
    context.strokeStyle = context.fillStyle = lineColour(i, theme);
    context.lineWidth = 1.5;
    context.setLineDash(LINES[i % LINES.length].dash);
    context.beginPath();
    let drawing = false;
    values.forEach((value, at) => {
      if (Number.isNaN(value)) drawing = false;
      else if (drawing) context.lineTo(middle(at), y(value));
      else {
        context.moveTo(middle(at), y(value));
        drawing = true;
      }
    });
    context.stroke();
    context.setLineDash([]);
    if (Number.isNaN(values[frame])) return;
    context.beginPath();
    context.arc(middle(frame), y(values[frame]), 3.5, 0, 2 * Math.PI);
    context.fill();
  });
}

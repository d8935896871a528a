// Pure functions of the player: frames, times, places. A video frame n is on the screen from n / fps to (n + 1) / fps.

export const GAP = 12, STRIP = { left: 8, right: 8, chart: 56, band: 18, bare: 14 };

/** The middle of a video frame in seconds: a seek there cannot land on a neighbour. */
export function timeOf(frame, fps) {
  return (frame + 0.5) / fps;
}

/** The video frame of a presentation time, which is the frame's own start. */
export function frameOfStamp(time, fps, frames) {
  return clamp(Math.round(time * fps), 0, frames - 1);
}

/** The video frame on the screen at a moment of playing. */
export function frameAt(time, fps, frames) {
  return clamp(Math.floor(time * fps + 1e-4), 0, frames - 1);
}

/** The latest video frame that all hold, or null: held is one list of frame numbers per video, newest last. */
export function commonFrame(held) {
  const [first, ...others] = held;
  const shared = first.filter((frame) => others.every((list) => list.includes(frame)));
  return shared.length ? shared.at(-1) : null;
}

/** How a video that is `ahead` of the first by so many frames gets back: a factor of its rate, or null for a seek. */
export function catchUp(ahead) {
  if (Math.abs(ahead) > 1.5) return null;
  return Math.abs(ahead) < 0.02 ? 1 : 1 - clamp(ahead, -0.2, 0.2);
}

/** First video frame of a latent frame; the last one's where there is no such latent frame. */
export function firstOf(latent, latentFrame) {
  const frame = latent.findIndex((one) => one >= latentFrame);
  return frame < 0 ? latent.indexOf(latent.at(-1)) : frame;
}

/** The video frame after a key on the strip, or null when the key means nothing there. */
export function frameAfterKey(frame, key, frames, latent) {
  const last = frames - 1, here = latent ? latent[frame] : null;
  const moves = {
    ArrowLeft: frame - 1, ArrowDown: frame - 1, ",": frame - 1, ArrowRight: frame + 1, ArrowUp: frame + 1, ".": frame + 1,
    PageDown: latent ? firstOf(latent, Math.max(0, here - 1)) : frame - 5,
    PageUp: latent ? firstOf(latent, here + 1) : frame + 5,
    Home: 0, End: last,
  };
  return key in moves ? clamp(moves[key], 0, last) : null;
}

/** Columns and size in CSS pixels of `count` pictures: whole multiples where small videos are enlarged. */
export function stageLayout(available, count, width, height, most = 384) {
  const fit = (columns) => {
    const scale = Math.min((available - GAP * (columns - 1)) / columns / width, most / height);
    return { columns, scale: scale >= 1 ? Math.floor(scale) : scale };
  };
  // Four in a row when that costs no size, else two by two.
  const inRow = fit(count), { columns, scale } = count === 4 && fit(2).scale > inRow.scale ? fit(2) : inRow;
  return { columns, scale, width: Math.round(width * scale), height: Math.round(height * scale) };
}

/** Ends of a strip's scale over all its lines; infinite values lie beyond its upper end. */
export function stripLimits(lines, fromZero) {
  const finite = lines.flatMap((line) => Array.from(line)).filter(Number.isFinite);
  if (!finite.length) return [0, 1];
  const low = fromZero ? Math.min(0, ...finite) : Math.min(...finite), high = Math.max(...finite);
  return high > low ? [low, high] : [low, low + 1];
}

/** Left edge of a video frame on a strip of that width. */
export function frameToX(frame, frames, width) {
  return STRIP.left + (frame * (width - STRIP.left - STRIP.right)) / frames;
}

export function xToFrame(x, frames, width) {
  return clamp(Math.floor(((x - STRIP.left) * frames) / (width - STRIP.left - STRIP.right)), 0, frames - 1);
}

/** "23.1 dB", "∞ dB", "–" */
export function formatValue(value, unit) {
  if (Number.isNaN(value)) return "–";
  const number = Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "∞";
  return unit ? `${number} ${unit}` : number;
}

/** "video frame 5 of 17 · latent frame 3 · 0.63 s", zero-based as everywhere. */
export function describePlace(frame, frames, fps, latent) {
  const parts = [`video frame ${frame} of 0–${frames - 1}`];
  if (latent) parts.push(`latent frame ${latent[frame]}`);
  parts.push(`${(frame / fps).toFixed(2)} s`);
  return parts.join(" · ");
}

// Up to four <video> elements in step. What is shown comes from short buffers of decoded frames, one per video: a frame
// goes to the screen only when all of them have it, so the same video frame of all is seen, whatever the decoders do.

const HELD = 6, WATCH_MS = 200;

export class Videos {
  /** onFrame(frame, pictures) per frame that all videos have; onEnd at the last one; onFailure(message). */
  constructor(place, { onFrame, onEnd, onFailure }) {
    Object.assign(this, { place, onFrame, onEnd, onFailure, all: [], frames: 1, speed: 1, playing: false, target: null });
  }

  /** Load other videos; the same ones stay as they are. */
  load(sources, frames) {
    this.frames = frames;
    const addresses = JSON.stringify(sources);
    if (addresses === this.loaded) return false;
    this.clear();
    this.loaded = addresses;
    this.all = sources.map((source) => this.open(source));
    return true;
  }

  clear() {
    this.stop();
    for (const one of this.all) {
      one.closed = true;
      one.video.onerror = one.video.onended = null;
      one.video.removeAttribute("src");
      one.video.load();
      one.video.remove();
    }
    this.all = [];
    this.loaded = this.target = null;
  }

  open({ address, fps, label }) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", disableRemotePlayback: true });
    video.setAttribute("aria-hidden", "true");
    video.tabIndex = -1;
    const one = { video, fps, held: [], ended: false };
    video.onerror = () => this.onFailure(`${label} cannot be played here.`);
    video.onended = () => {
      one.ended = true;
      this.ended();
    };
    video.src = address;
    this.place.append(video);
    this.watchFrames(one);
    return one;
  }

  /** Keep every decoded frame of one video as it comes. */
  watchFrames(one) {
    const { video } = one;
    if (video.requestVideoFrameCallback) {
      const next = (_now, { mediaTime }) => {
        if (one.closed) return;
        this.hold(one, frameOfStamp(mediaTime, one.fps, this.frames));
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
      return;
    }
    const poll = () => {
      if (one.closed) return;
      if (this.playing && !video.seeking && video.readyState >= 2) this.hold(one, frameAt(video.currentTime, one.fps, this.frames));
      requestAnimationFrame(poll);
    };
    requestAnimationFrame(poll);
  }

  /** Keep what a video shows now, as `stamped` where the browser cannot say itself which frame that is. */
  hold(one, stamped) {
    const { video, held } = one;
    if (!video.videoWidth || video.readyState < 2) return;
    // A picture that knows its own time: a callback may come a frame before or after what is drawn in it.
    const now = window.VideoFrame ? new VideoFrame(video) : null;
    const own = now ? frameOfStamp(now.timestamp / 1e6, one.fps, this.frames) : 0;
    // Not every browser fills that time in, so it is believed once it was seen to run with the video.
    one.knowsTime ||= own > 0 && Math.abs(own - stamped) <= 1;
    const frame = one.knowsTime ? own : stamped;
    let reused = held.findIndex((each) => each.frame === frame);
    // The oldest picture makes room, but never the one that is on the screen.
    if (reused < 0 && held.length >= HELD) reused = held.findIndex(({ picture }) => !this.presented?.includes(picture));
    const place = reused >= 0 ? held.splice(reused, 1)[0].picture : document.createElement("canvas");
    if (place.width !== video.videoWidth || place.height !== video.videoHeight) {
      place.width = video.videoWidth;
      place.height = video.videoHeight;
    }
    place.getContext("2d").drawImage(now ?? video, 0, 0);
    now?.close();
    held.push({ frame, picture: place });
    this.present();
  }

  present() {
    const held = this.all.map((one) => one.held.map((each) => each.frame));
    // At rest only the wanted frame is shown, not one that a decoder passes on its way.
    const frame = this.playing ? commonFrame(held) : held.every((list) => list.includes(this.target)) ? this.target : null;
    if (frame === null) return;
    this.presented = this.all.map((one) => one.held.find((each) => each.frame === frame).picture);
    this.onFrame(frame, this.presented);
    // The other videos have ended, and this one only has frames that nobody compares.
    if (this.playing && frame === this.frames - 1 && this.all.some((one) => one.video.duration * one.fps > this.frames + 0.5)) this.finish();
  }

  /** Go to a video frame and stay there; resolves when all show it. While one seek is under way, the last wish wins. */
  async seek(frame) {
    this.stop();
    this.target = clamp(frame, 0, this.frames - 1);
    if (this.seeking) return this.seeking;
    this.seeking = (async () => {
      for (let reached = null; reached !== this.target && !this.playing; ) {
        reached = this.target;
        await Promise.all(this.all.map((one) => seekOne(one, reached)));
        for (const one of this.all) this.hold(one, reached);
      }
    })();
    try {
      await this.seeking;
    } finally {
      this.seeking = null;
    }
  }

  async play(from) {
    const { loaded } = this;
    if (from !== this.target || this.seeking) await this.seek(from);
    if (this.loaded !== loaded || !this.all.length) return;
    this.playing = true;
    this.target = null;
    this.setSpeed(this.speed);
    for (const one of this.all) {
      one.ended = false;
      one.held = one.held.filter((each) => each.frame === from);
    }
    clearInterval(this.timer);
    this.timer = setInterval(() => this.keepStep(), WATCH_MS);
    try {
      await Promise.all(this.all.map(({ video }) => video.play()));
    } catch (error) {
      // A pause right after a play interrupts it, which is no failure.
      if (error.name !== "AbortError") this.onFailure(`Playing failed: ${error.message}`);
    }
  }

  stop() {
    this.playing = false;
    clearInterval(this.timer);
    for (const { video } of this.all) video.pause();
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const one of this.all) one.video.playbackRate = this.rateOf(one);
  }

  /** At other frames per second a video still shows as many frames per second as the first one. */
  rateOf(one) {
    return clamp((this.speed * this.all[0].fps) / one.fps, 0.0625, 16);
  }

  keepStep() {
    if (!this.playing) return;
    const [first, ...others] = this.all;
    const now = first.video.currentTime * first.fps;
    for (const one of others) {
      if (first.ended || one.ended || one.video.seeking) continue;
      const factor = catchUp(one.video.currentTime * one.fps - now);
      if (factor === null) one.video.currentTime = (now + 0.1) / one.fps;
      one.video.playbackRate = this.rateOf(one) * (factor ?? 1);
    }
  }

  ended() {
    if (this.playing && this.all.every((one) => one.ended || one.video.ended)) this.finish();
  }

  finish() {
    this.stop();
    this.onEnd();
  }
}

function seekOne({ video, fps }, frame) {
  return new Promise((done) => {
    const start = () => {
      const time = timeOf(frame, fps);
      if (!video.seeking && Math.abs(video.currentTime - time) < 1e-4 && video.readyState >= 2) return done();
      video.addEventListener("seeked", done, { once: true });
      video.currentTime = time;
    };
    video.addEventListener("error", done, { once: true });
    if (video.readyState >= 1) start();
    else video.addEventListener("loadedmetadata", start, { once: true });
  });
}

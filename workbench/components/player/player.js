// The element: keys, buttons and the pointer in, pictures out, and one message per frame that the player comes to rest on.
// State is kept per mounted element, since Streamlit calls the default export again on every run and change of theme.

const KEY_COMMIT_MS = 350;
const mounted = new WeakMap();

export default function player({ data, parentElement, setTriggerValue }) {
  let one = mounted.get(parentElement);
  if (!one || !one.root.isConnected) {
    one?.disconnect();
    one = new Player(parentElement.querySelector(".player"));
    mounted.set(parentElement, one);
  }
  one.trigger = setTriggerValue;
  one.observer.observe(one.root);
  one.receive(data);
  // Streamlit may run the clean-up of an overtaken call while the element lives on.
  const call = (one.lastCall = {});
  return () => {
    if (one.lastCall === call) one.disconnect();
  };
}

class Player {
  constructor(root) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    this.find = find;
    [this.pictures, this.wipe, this.strip] = [".pictures", ".wipe", ".strip"].map(find);
    this.canvas = find(".strip canvas");
    this.live = find(".live");
    this.state = { frame: 0, frames: 1, latent: null, lines: [], limits: [0, 1], view: "side", other: 1, share: 0.5 };
    this.echo = new Echo();
    this.videos = new Videos(this.pictures, {
      onFrame: (frame, pictures) => this.show(frame, pictures),
      onEnd: () => this.atEnd(),
      onFailure: (words) => (find(".failure").textContent = words),
    });
    this.link = new FrameLink({ onWanted: (latent) => this.goTo(firstOf(this.state.latent ?? [0], latent), true) });
    this.observer = new ResizeObserver(() => this.schedule());
    this.listen();
  }

  disconnect() {
    this.observer.disconnect();
    this.link.disconnect();
    this.videos.clear();
    cancelAnimationFrame(this.drawing);
    clearTimeout(this.timer);
    this.drawing = this.timer = 0;
  }

  /** What Python says; a frame only where Python itself chose another one. */
  receive(data) {
    const { state } = this;
    this.data = data;
    this.theme = readTheme(this.root);
    Object.assign(state, { frames: data.frames, latent: data.latent, frame: Math.min(state.frame, data.frames - 1) });
    this.link.connect(data.link);
    const isNews = this.echo.isNews(data.videoFrame);
    const isNew = this.videos.load(data.videos, data.frames);
    if (isNew) this.layOut();
    this.showHead();
    this.showLines();
    this.strip.setAttribute("aria-valuemax", data.frames - 1);
    this.root.hidden = false;
    if (isNew || isNews) this.goTo(isNews ? data.videoFrame : state.frame, false);
    else this.schedule();
  }

  /** One figure per video; in the other views the first one alone holds the picture. */
  layOut() {
    this.find(".failure").textContent = "";
    const { videos } = this.data;
    for (const figure of this.pictures.querySelectorAll("figure")) figure.remove();
    this.figures = videos.map(({ label }) => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas");
      const caption = document.createElement("figcaption");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
      [canvas.width, canvas.height] = [videos[0].width, videos[0].height];
      caption.textContent = label;
      figure.append(canvas, caption);
      this.pictures.append(figure);
      return { figure, canvas, caption };
    });
    this.shown = null;
    const options = videos.slice(1).map(({ label }, i) => new Option(label, i + 1));
    this.find(".against select").replaceChildren(...options);
    if (this.state.other >= videos.length) this.state.other = 1;
    this.setView(videos.length > 1 ? this.state.view : "side");
  }

  showHead() {
    const { pairing, videos } = this.data;
    const badge = this.find(".pairing");
    badge.textContent = pairing;
    badge.hidden = !pairing;
    badge.classList.toggle("warns", pairing !== "paired");
    this.find(".views").hidden = videos.length < 2;
    const names = videos.map(({ label }) => label).join(", ");
    this.root.setAttribute("aria-label", `Video player: ${names}${pairing ? `, ${pairing}` : ""}`);
  }

  /** The strip's numbers, those of the one that is chosen. */
  showLines() {
    const { state, data } = this;
    const { strips } = data, select = this.find(".which");
    const names = strips.map(({ name }) => name);
    if (JSON.stringify(names) !== this.stripNames) {
      this.stripNames = JSON.stringify(names);
      select.replaceChildren(...names.map((name, i) => new Option(name, i)));
    }
    select.hidden = strips.length < 2;
    const chosen = Math.max(0, select.selectedIndex), strip = strips[chosen];
    const before = strips.slice(0, chosen).reduce((count, { lines }) => count + lines.length, 0);
    const column = (i) => Array.from(data.values.getChild(`line${before + i}`).toArray());
    state.strip = strip ?? null;
    state.lines = strip ? strip.lines.map((_, i) => column(i)) : [];
    state.limits = stripLimits(state.lines, strip?.fromZero ?? true);
    this.find(".lines").replaceChildren(...(strip?.lines ?? []).map((label, i) => {
      const item = document.createElement("li"), value = document.createElement("b");
      item.style.setProperty("--line", lineColour(i, this.theme));
      item.dataset.dash = i;
      item.append(strip.lines.length > 1 || label !== strip.name ? `${strip.name}, ${label} ` : `${label} `, value);
      return item;
    }));
  }

  schedule() {
    if (!this.drawing) this.drawing = requestAnimationFrame(() => this.draw());
  }

  /** A frame that all videos have: pictures, cursor and mark follow. */
  show(frame, pictures) {
    this.shown = pictures;
    if (frame !== this.state.frame) {
      this.state.frame = frame;
      if (this.state.latent) this.link.show(this.state.latent[frame]);
    }
    this.root.dataset.shown = frame;
    this.drawPictures();
    this.schedule();
  }

  drawPictures() {
    const { state, shown, figures } = this;
    if (!shown) return;
    if (state.view === "wipe") drawWipe(figures[0].canvas, shown[0], shown[state.other], state.share);
    else if (state.view === "difference") drawDifference(figures[0].canvas, shown[0], shown[state.other]);
    else figures.forEach(({ canvas }, i) => drawPicture(canvas, shown[i]));
  }

  draw() {
    this.drawing = 0;
    const width = this.root.clientWidth;
    if (!width || !this.figures) return;
    const { state, data } = this;
    const count = state.view === "side" ? data.videos.length : 1;
    // All pictures have the first one's size, so that the same place lies at the same point.
    const layout = stageLayout(width, count, data.videos[0].width, data.videos[0].height, data.tallest);
    this.pictures.style.gridTemplateColumns = `repeat(${layout.columns}, ${layout.width}px)`;
    for (const { canvas } of this.figures) {
      canvas.style.width = `${layout.width}px`;
      canvas.style.height = `${layout.height}px`;
      canvas.classList.toggle("enlarged", layout.scale >= 1);
    }
    this.wipe.style.width = `${layout.width}px`;
    this.wipe.style.height = `${layout.height}px`;
    drawStrip(prepare(this.canvas, width, stripHeight(state)), width, state, this.theme);
    this.showWords();
  }

  showWords() {
    const { state } = this;
    const fps = this.data.videos[0].fps, unit = state.strip?.unit ?? "";
    const place = describePlace(state.frame, state.frames, fps, state.latent);
    const values = state.lines.map((line) => formatValue(line[state.frame], unit));
    this.find(".place").textContent = place;
    this.find(".lines").querySelectorAll("b").forEach((value, i) => (value.textContent = values[i]));
    this.strip.setAttribute("aria-valuenow", state.frame);
    const said = state.strip ? values.map((value, i) => `${state.strip.name} ${state.strip.lines[i]} ${value}`) : [];
    this.strip.setAttribute("aria-valuetext", [place, ...said].join(", "));
    this.wipe.firstElementChild.style.left = `${100 * state.share}%`;
    this.wipe.setAttribute("aria-valuenow", Math.round(100 * state.share));
    this.wipe.setAttribute("aria-valuetext", `${Math.round(100 * state.share)} % ${this.data.videos[0].label}`);
  }

  setPlaying(playing) {
    const button = this.find(".play");
    button.setAttribute("aria-label", playing ? "Pause" : "Play");
    button.classList.toggle("playing", playing);
    this.root.dataset.playing = playing;
  }

  get looping() {
    return this.find(".loop").getAttribute("aria-pressed") === "true";
  }

  play() {
    const { state } = this;
    clearTimeout(this.timer);
    this.timer = 0;
    this.setPlaying(true);
    this.videos.play(state.frame >= state.frames - 1 ? 0 : state.frame);
  }

  pause() {
    this.goTo(this.state.frame, true);
  }

  toggle() {
    if (this.root.dataset.playing === "true") this.pause();
    else this.play();
  }

  atEnd() {
    if (this.looping) this.videos.play(0);
    else this.pause();
  }

  /** Rest on a video frame; `tell` Python at once, or when the keys rest. */
  goTo(frame, tell) {
    const { state } = this;
    this.setPlaying(false);
    state.frame = clamp(frame, 0, state.frames - 1);
    if (state.latent) this.link.show(state.latent[state.frame]);
    this.videos.seek(state.frame);
    this.schedule();
    if (tell === true) this.commit();
    else if (tell === "later") {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.commit(), KEY_COMMIT_MS);
    }
  }

  commit() {
    clearTimeout(this.timer);
    this.timer = 0;
    const { frame, frames, latent } = this.state;
    this.live.textContent = describePlace(frame, frames, this.data.videos[0].fps, latent);
    if (frame === this.told) return;
    this.told = frame;
    this.echo.send(frame);
    this.trigger("video_frame", frame);
  }

  step(by) {
    this.goTo(this.state.frame + by, "later");
  }

  setView(view) {
    this.state.view = view;
    for (const button of this.root.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
    const alone = view !== "side", { videos } = this.data;
    this.wipe.hidden = view !== "wipe";
    this.find(".against").hidden = !alone || videos.length < 3;
    this.figures.forEach(({ figure, caption, canvas }, i) => {
      figure.hidden = alone && i > 0;
      const words = !alone ? videos[i].label : this.viewLabel();
      caption.textContent = words;
      canvas.setAttribute("aria-label", words);
    });
    this.drawPictures();
    this.schedule();
  }

  viewLabel() {
    const { videos } = this.data, { view, other } = this.state;
    const [one, two] = [videos[0].label, videos[other].label];
    return view === "wipe" ? `${one} | ${two}` : `|${one} − ${two}| × 4, black where they agree`;
  }

  listen() {
    const { root, find, state, strip, wipe } = this;
    find(".play").onclick = () => this.toggle();
    find(".back").onclick = () => this.step(-1);
    find(".forward").onclick = () => this.step(1);
    find(".loop").onclick = () => this.toggleLoop();
    find(".speed").onchange = ({ target }) => this.videos.setSpeed(Number(target.value));
    find(".which").onchange = () => {
      this.showLines();
      this.schedule();
    };
    find(".against select").onchange = ({ target }) => {
      state.other = Number(target.value);
      this.setView(state.view);
    };
    for (const button of root.querySelectorAll("[data-view]")) button.onclick = () => this.setView(button.dataset.view);
    root.onkeydown = (event) => this.onKey(event);
    this.follow(strip, (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.goTo(xToFrame(event.clientX - box.left, state.frames, box.width), false);
    }, () => this.commit());
    this.follow(wipe, (event) => {
      const box = wipe.getBoundingClientRect();
      this.moveWipe((event.clientX - box.left) / box.width);
    });
    wipe.onkeydown = (event) => {
      const moves = { ArrowLeft: state.share - 0.02, ArrowRight: state.share + 0.02, Home: 0, End: 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      event.stopPropagation();
      this.moveWipe(moves[event.key]);
    };
  }

  /** Pointer held down on an element: every move counts, the release ends it. */
  follow(element, move, release = () => {}) {
    element.onpointerdown = (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      element.focus({ focusVisible: false });
      element.setPointerCapture(event.pointerId);
      move(event);
    };
    element.onpointermove = (event) => {
      if (element.hasPointerCapture(event.pointerId)) move(event);
    };
    element.onlostpointercapture = release;
  }

  moveWipe(share) {
    this.state.share = clamp(share, 0, 1);
    this.drawPictures();
    this.schedule();
  }

  toggleLoop() {
    const button = this.find(".loop");
    button.setAttribute("aria-pressed", String(!this.looping));
    this.live.textContent = this.looping ? "loop on" : "loop off";
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select")) return;
    const { state, strip } = this;
    // On a button the space key presses that button.
    if (event.key === "k" || (event.key === " " && !event.target.matches("button"))) this.toggle();
    else if (event.key === "l") this.toggleLoop();
    else {
      const everywhere = event.key === "," || event.key === ".";
      const frame = everywhere || event.target === strip ? frameAfterKey(state.frame, event.key, state.frames, state.latent) : null;
      if (frame === null) return;
      this.goTo(frame, "later");
    }
    event.preventDefault();
  }
}

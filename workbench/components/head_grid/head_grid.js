// The element: events in, one message out per pin and per released threshold. State is kept per mounted element, since
// Streamlit calls the default export again on every run and on every change of theme.

const HANDLE_WIDTH = 74, SIDE_BY_SIDE = 860, BESIDE = 36 + 340, KEY_COMMIT_MS = 350;
const mounted = new WeakMap();

export default function headGrid({ data, parentElement, setTriggerValue }) {
  let grid = mounted.get(parentElement);
  if (!grid || !grid.root.isConnected) {
    grid?.disconnect();
    grid = new HeadGrid(parentElement.querySelector(".head-grid"));
    mounted.set(parentElement, grid);
  }
  grid.trigger = setTriggerValue;
  grid.connect();
  grid.receive(data);
  // Streamlit may run the clean-up of an overtaken call while the element lives on.
  const call = (grid.lastCall = {});
  return () => {
    if (grid.lastCall === call) grid.disconnect();
  };
}

class HeadGrid {
  constructor(root) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    this.cells = find(".cells");
    this.cellsCanvas = find(".cells canvas");
    this.cellLayer = new CellLayer();
    this.cell = find("#cell");
    this.readout = find(".readout");
    this.marks = find(".marks");
    this.ratios = find(".ratios");
    this.ratiosCanvas = find(".ratios canvas");
    this.handles = [find('[data-threshold="0"]'), find('[data-threshold="1"]')];
    this.live = find(".live");
    this.state = { hover: null, pinned: null, focus: [0, 0], focused: false };
    this.received = {};
    this.sent = { thresholds: [], cell: [] };
    this.drag = null;
    for (const { letter, colour } of ROLES) {
      const chip = find(`[data-role="${letter}"] .letter`);
      chip.style.background = colour;
      chip.style.color = letterColour(colour);
    }
    this.listenToCells();
    this.handles.forEach((handle, which) => this.listenToHandle(handle, which));
    this.observer = new ResizeObserver(() => this.schedule());
    this.link = new PageLink({ [MASK_MOVED]: (mask) => this.followMask(mask) });
  }

  connect() {
    this.observer.observe(this.root);
    this.screen?.removeEventListener("change", this.onScreen);
    this.onScreen = () => {
      this.connect();
      this.schedule();
    };
    this.screen = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    this.screen.addEventListener("change", this.onScreen);
  }

  disconnect() {
    this.observer.disconnect();
    this.link.disconnect();
    this.screen.removeEventListener("change", this.onScreen);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = 0;
  }

  /** What Python says: arrays are taken as they are, thresholds and pin only when Python changed them. */
  receive(data) {
    const { state } = this;
    const column = (name) => data.cells.getChild(name).toArray();
    Object.assign(state, {
      blocks: data.blocks, heads: data.heads, ratio: column("ratio"), flags: column("flags"), removed: column("removed"), crossed: data.crossed, names: column("name"),
      numFrames: data.numFrames, uniform: data.uniform, delta: data.delta, shade: data.shade, firstBlock: data.firstBlock,
      ordered: data.ordered,
    });
    this.follow = data.follow;
    this.link.connect(data.link);
    if (this.isNews("thresholds", data.thresholds)) {
      if (this.drag) this.drag.before = data.thresholds;
      else if (!this.timer) state.thresholds = data.thresholds;
    }
    if (this.isNews("cell", data.pinned) && String(data.pinned) !== String(state.pinned)) {
      state.pinned = data.pinned;
      // Someone chose another head elsewhere: the keys go on from there. An echo must not pull them back.
      if (data.pinned) state.focus = data.pinned;
    }
    const last = [state.blocks - 1, state.heads - 1];
    state.focus = state.focus.map((index, i) => Math.min(index, last[i]));
    if (state.hover && state.hover.some((index, i) => index > last[i])) state.hover = null;
    this.cells.setAttribute("aria-rowcount", state.blocks);
    this.cells.setAttribute("aria-colcount", state.heads);
    this.root.classList.toggle("row", data.rowOnly);
    this.theme = readTheme(this.root);
    this.showMarks();
    this.reclassify();
  }

  /** Whether Python changed a value; its echo of something that was overtaken in the meantime is no news. */
  isNews(name, value) {
    const text = JSON.stringify(value);
    const changed = this.received[name] !== text, echo = this.sent[name].indexOf(text);
    this.received[name] = text;
    if (changed || echo >= 0) this.sent[name] = this.sent[name].slice(echo + 1 || Infinity);
    return changed && this.sent[name].length === 0;
  }

  /** Both parts go with either message: one that overtakes another before Python has run must not lose what it said. */
  send(name, value) {
    const { state } = this;
    this.sent[name].push(JSON.stringify(value));
    this.trigger(name, { thresholds: this.drag?.before ?? state.thresholds, cell: state.pinned, [name]: value });
  }

  reclassify() {
    const { state } = this;
    state.roles = classify(state.ratio, state.thresholds);
    this.counts = countRoles(state.roles);
    this.flips = countFlips(state.ratio, state.thresholds, state.delta);
    this.schedule();
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { state, theme, root } = this;
    if (!state.roles) return;
    // Hidden until now: nobody meets a slider without a value.
    root.hidden = false;
    const width = root.clientWidth;
    if (!width) return;
    const beside = width >= SIDE_BY_SIDE && !this.root.classList.contains("row");
    this.layout = gridLayout(beside ? width - BESIDE : width, state.blocks, state.heads);
    drawGrid(prepare(this.cellsCanvas, this.layout.width, this.layout.height), this.layout, state, theme, this.cellLayer);
    this.marks.style.maxWidth = `${Math.max(this.layout.width, 280)}px`;
    // Read before any text changes: read after, it would have the page laid out twice in a frame.
    this.plotWidth = this.ratios.clientWidth;
    this.showTexts();
    if (this.root.classList.contains("row")) return;
    drawHistogram(prepare(this.ratiosCanvas, this.plotWidth, PLOT.height), this.plotWidth, state, theme);
    this.handles.forEach((handle, which) => this.placeHandle(handle, which));
  }

  placeHandle(handle, which) {
    const { thresholds } = this.state;
    const x = ratioToX(thresholds[which], this.plotWidth);
    // The labels hang outwards, τt to the left of its line and τs to the right: at the least gap both can be taken.
    const left = which === 0 ? x - 8 : x - HANDLE_WIDTH + 8;
    handle.style.transform = `translateX(${clamp(left, 0, this.plotWidth - HANDLE_WIDTH)}px)`;
    const text = formatThreshold(thresholds[which]);
    handle.firstElementChild.textContent = `${which === 0 ? "τs" : "τt"} ${text}`;
    const [low, high] = thresholdRange(thresholds, which);
    handle.setAttribute("aria-valuemin", low);
    handle.setAttribute("aria-valuemax", high);
    handle.setAttribute("aria-valuenow", thresholds[which]);
    const count = this.counts[which === 0 ? SPATIAL : TEMPORAL];
    handle.setAttribute("aria-valuetext", `${text}, ${count} ${which === 0 ? "spatial above" : "temporal below"}`);
  }

  describe([block, head]) {
    const { state } = this;
    const i = block * state.heads + head;
    return describeCell(state.firstBlock + block, state.names[i], state.ratio[i], state.roles[i], state.flags[i], state.removed[i], state.crossed);
  }

  showTexts() {
    const { state, counts } = this;
    ROLES.forEach(({ letter }, role) => this.setText(`[data-role="${letter}"] b`, counts[role]));
    this.setText(".flips", describeFlips(this.flips, state.delta));
    const shown = state.hover ?? (state.focused ? state.focus : null) ?? state.pinned;
    this.setText(".readout", shown ? this.describe(shown) : "Point at a head to read it, click to pin it.");
    this.cell.parentElement.setAttribute("aria-rowindex", state.focus[0] + 1);
    this.cell.setAttribute("aria-colindex", state.focus[1] + 1);
    this.cell.setAttribute("aria-selected", JSON.stringify(state.focus) === JSON.stringify(state.pinned));
    this.setText("#cell", this.describe(state.focus));
    this.ratiosCanvas.setAttribute("aria-label", `Histogram of ${state.ratio.length - counts[NOT_CAPTURED]} ratios: ${this.summary()}`);
  }

  setText(selector, text) {
    const element = this.root.querySelector(selector);
    if (element.textContent !== String(text)) element.textContent = text;
  }

  summary() {
    const [tauS, tauT] = this.state.thresholds.map(formatThreshold);
    const parts = ROLES.map(({ word }, role) => `${this.counts[role]} ${word}`);
    return `τt ${tauT}, τs ${tauS}: ${parts.join(", ")}; ${describeFlips(this.flips, this.state.delta)}`;
  }

  /** A legend of the marks that occur, and of no others. */
  showMarks() {
    const { ratio, flags, removed, crossed } = this.state;
    const marks = [
      ["not-captured", "not captured", ratio.some(Number.isNaN)],
      ["removed", crossed, removed.some(Boolean)],
      ["sink", "first-frame sink", flags.some((flag) => flag & FLAG_FIRST_FRAME_SINK)],
      ["uniform", "uniform", flags.some((flag) => flag & FLAG_UNIFORM)],
      ["flipped", "other pick than without α", flags.some((flag) => flag & FLAG_FLIPPED)],
    ];
    this.marks.replaceChildren(...marks.filter(([, , occurs]) => occurs).map(([name, text]) => {
      const item = document.createElement("li"), mark = document.createElement("span");
      mark.className = `mark ${name}`;
      item.append(mark, text);
      return item;
    }));
  }

  listenToCells() {
    const { cells, state } = this;
    const under = (event) => {
      const box = this.cellsCanvas.getBoundingClientRect();
      return this.layout ? cellAt(this.layout, event.clientX - box.left, event.clientY - box.top) : null;
    };
    const hover = (cell) => {
      if (String(cell) === String(state.hover)) return;
      state.hover = cell;
      this.schedule();
    };
    cells.onpointermove = (event) => hover(under(event));
    cells.onpointerleave = () => hover(null);
    cells.onclick = (event) => {
      const cell = under(event);
      if (cell) this.pin(cell);
    };
    const showFocus = () => {
      state.focused = cells.matches(":focus-visible");
      this.schedule();
    };
    cells.onfocus = showFocus;
    cells.onblur = showFocus;
    cells.onkeydown = (event) => {
      if (event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.pin(state.focus);
        return;
      }
      const cell = cellAfterKey(state.focus, event.key, state.blocks, state.heads, event.ctrlKey);
      if (!cell) return;
      event.preventDefault();
      state.focus = cell;
      state.hover = null;
      state.focused = true;
      this.live.textContent = this.describe(cell);
      this.schedule();
    };
  }

  pin(cell) {
    const { state } = this;
    const same = JSON.stringify(cell) === JSON.stringify(state.pinned);
    state.focus = cell;
    state.pinned = cell;
    this.schedule();
    if (same) return;
    this.live.textContent = `pinned ${this.describe(cell)}`;
    this.send("cell", cell);
  }

  listenToHandle(handle, which) {
    const ratioUnder = (event) => xToRatio(event.clientX - this.ratios.getBoundingClientRect().left, this.plotWidth);
    handle.onpointerdown = (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      handle.focus({ focusVisible: false });
      handle.setPointerCapture(event.pointerId);
      handle.classList.add("dragged");
      this.handles[1 - which].classList.remove("dragged");
      this.flushKeys();
      this.drag = { before: this.state.thresholds, offset: ratioUnder(event) - this.state.thresholds[which] };
    };
    handle.onpointermove = (event) => {
      if (this.drag) this.move(moveThreshold(this.state.thresholds, which, ratioUnder(event) - this.drag.offset));
    };
    const release = (keep) => {
      if (!this.drag) return;
      const { before } = this.drag;
      this.drag = null;
      if (keep) this.commit(before);
      else this.move(before);
    };
    handle.onpointerup = () => release(true);
    handle.onpointercancel = () => release(false);
    handle.onlostpointercapture = () => release(false);
    handle.onkeydown = (event) => {
      if (event.key === "Escape") return release(false);
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const thresholds = thresholdsAfterKey(this.state.thresholds, which, event.key, event.shiftKey);
      if (!thresholds || this.drag) return;
      event.preventDefault();
      this.beforeKeys ??= this.state.thresholds;
      this.move(thresholds);
      // A held or repeated key is one movement: it is released when the keys rest.
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.flushKeys(), KEY_COMMIT_MS);
    };
    handle.onblur = () => this.flushKeys();
  }

  flushKeys() {
    if (!this.timer) return;
    clearTimeout(this.timer);
    this.timer = 0;
    const before = this.beforeKeys;
    this.beforeKeys = undefined;
    this.commit(before);
  }

  move(thresholds) {
    if (String(thresholds) === String(this.state.thresholds)) return;
    this.state.thresholds = thresholds;
    this.link.tell(THRESHOLDS_MOVED, { thresholds });
    this.reclassify();
  }

  /** The mask as its sliders count it just now: one value per head, block by block, whatever order is drawn. */
  followMask(mask) {
    const { state } = this, { heads, names } = state;
    if (!this.follow.length || mask.removed.length !== names.length) return;
    const drawn = (values) => values.map((_, i) => values[Math.floor(i / heads) * heads + names[i]]);
    if (this.follow.includes("removed")) state.removed = drawn(mask.removed);
    if (this.follow.includes("flipped")) {
      const flipped = drawn(mask.flipped);
      state.flags = state.flags.map((flag, i) => (flag & ~FLAG_FLIPPED) | (flipped[i] ? FLAG_FLIPPED : 0));
    }
    this.showMarks();
    this.schedule();
  }

  commit(before) {
    if (String(before) === String(this.state.thresholds)) return;
    this.live.textContent = this.summary();
    this.send("thresholds", this.state.thresholds);
  }
}

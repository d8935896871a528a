// The element: events in, one message out per cell turned over. State is kept per mounted element, since Streamlit calls
// the default export again on every run and on every change of theme.

const mounted = new WeakMap();

export default function lanes({ data, parentElement, setTriggerValue }) {
  let found = mounted.get(parentElement);
  if (!found || !found.root.isConnected) {
    found?.disconnect();
    found = new Lanes(parentElement.querySelector(".lanes"));
    mounted.set(parentElement, found);
  }
  found.trigger = setTriggerValue;
  found.observer.observe(found.root);
  found.receive(data);
  // Streamlit may run the clean-up of an overtaken call while the element lives on.
  const call = (found.lastCall = {});
  return () => {
    if (found.lastCall === call) found.disconnect();
  };
}

class Lanes {
  constructor(root) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    this.cells = find(".cells");
    this.canvas = find("canvas");
    this.cell = find("#cell");
    this.readout = find(".readout");
    this.live = find(".live");
    this.state = { hover: null, focus: [1, 0], focused: false };
    this.observer = new ResizeObserver(() => this.schedule());
    this.listen();
  }

  disconnect() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  receive(data) {
    const { state, root } = this;
    const column = (name) => {
      const found = data.cells.getChild(name);
      return found ? Array.from(found.toArray()) : null;
    };
    Object.assign(state, {
      blocks: data.blocks, steps: data.timesteps.length, timesteps: data.timesteps, editable: data.editable,
      scoreLimits: data.scoreLimits, scorePalette: data.scorePalette, changeLimits: data.changeLimits,
      changePalette: data.changePalette, ran: column("ran"), score: column("score"), distance: column("distance"),
      differs: column("differs"), edited: column("edited"), change: column("change"),
    });
    this.count();
    state.focus = [Math.min(state.focus[0], state.blocks - 1), Math.min(state.focus[1], state.steps - 1)];
    this.cells.setAttribute("aria-label", data.title);
    this.cells.setAttribute("aria-rowcount", state.blocks);
    this.cells.setAttribute("aria-colcount", state.steps);
    root.classList.toggle("editable", data.editable);
    root.querySelector(".turn").hidden = !data.editable;
    this.scale(".score", state.scoreLimits, state.scorePalette);
    this.scale(".change", state.changeLimits, state.change && state.changePalette);
    this.theme = readTheme(root);
    this.schedule();
  }

  /** Blocks that ran at every step, and which marks the legend needs. */
  count() {
    const { state, root } = this;
    state.counts = state.timesteps.map((_, step) =>
      state.ran.slice(step * state.blocks, (step + 1) * state.blocks).reduce((sum, ran) => sum + ran, 0));
    root.querySelector(".key.differs").hidden = !state.differs.some(Boolean);
    root.querySelector(".key.edited").hidden = !state.edited.some(Boolean);
    root.dataset.skipped = state.ran.filter((ran) => !ran).length;
    root.dataset.edited = state.edited.filter(Boolean).length;
    root.dataset.differs = state.differs.filter(Boolean).length;
  }

  scale(name, [low, high], palette) {
    const scale = this.root.querySelector(name);
    scale.hidden = !palette;
    if (!palette) return;
    scale.querySelector(".low").textContent = formatNumber(low);
    scale.querySelector(".high").textContent = formatNumber(high);
    scale.querySelector("i").style.background = `linear-gradient(to right, ${palette.join(", ")})`;
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { state, root } = this;
    if (!state.ran) return;
    // Hidden until now: nobody meets a grid without a name.
    root.hidden = false;
    if (!root.clientWidth) return;
    this.layout = lanesLayout(root.clientWidth, state.blocks, state.steps, Boolean(state.change));
    drawLanes(prepare(this.canvas, this.layout.width, this.layout.height), this.layout, state, this.theme);
    const shown = state.hover ?? (state.focused ? state.focus : null);
    const idle = state.editable ? "Point at a cell to read it, click to turn its decision over." : "Point at a cell to read it.";
    this.readout.textContent = shown ? this.describe(shown) : idle;
    this.cells.querySelector("[role=row]").setAttribute("aria-rowindex", state.focus[0] + 1);
    this.cell.setAttribute("aria-colindex", state.focus[1] + 1);
    this.cell.textContent = this.describe(state.focus);
  }

  describe([block, step]) {
    const { state } = this;
    const i = step * state.blocks + block;
    const words = [`block ${block}`, `t ${state.timesteps[step].toFixed(0)}`];
    if (!mayTurn(block, state.blocks)) words.push("always runs");
    else words.push(state.ran[i] ? "ran" : "skipped", `score ${formatNumber(state.score[i])}`);
    if (state.edited[i]) words.push("turned over by hand");
    else if (!Number.isNaN(state.distance[i])) words.push(`${formatNumber(state.distance[i])} from the flip`);
    if (state.differs[i]) words.push("differs");
    if (state.change) {
      words.push(Number.isNaN(state.change[i]) ? "change not measured" : `changes its input by ${formatNumber(state.change[i])}`);
    }
    return words.join(" · ");
  }

  turn([block, step]) {
    const { state } = this;
    if (!state.editable || !mayTurn(block, state.blocks)) return;
    const i = step * state.blocks + block;
    // At once on the screen; Python sends what came of it.
    state.ran[i] = state.ran[i] ? 0 : 1;
    state.edited[i] = state.edited[i] ? 0 : 1;
    this.count();
    this.schedule();
    this.live.textContent = `turned over: ${this.describe([block, step])}`;
    this.trigger("cell", [step, block]);
  }

  listen() {
    const { cells, state } = this;
    const under = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return this.layout ? cellAt(this.layout, event.clientX - box.left, event.clientY - box.top) : null;
    };
    const hover = (place) => {
      if (String(place) === String(state.hover)) return;
      state.hover = place;
      this.schedule();
    };
    cells.onpointermove = (event) => hover(under(event));
    cells.onpointerleave = () => hover(null);
    cells.onclick = (event) => {
      const place = under(event);
      if (!place) return;
      state.focus = [place[0], place[1]];
      // The map above is there to be read.
      if (!place[2]) this.turn(state.focus);
    };
    cells.onfocus = cells.onblur = () => {
      state.focused = cells.matches(":focus-visible");
      this.schedule();
    };
    cells.onkeydown = (event) => {
      if (event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.turn(state.focus);
        return;
      }
      const place = cellAfterKey(state.focus, event.key, state.blocks, state.steps, event.ctrlKey);
      if (!place) return;
      event.preventDefault();
      Object.assign(state, { focus: place, hover: null, focused: true });
      this.live.textContent = this.describe(place);
      this.schedule();
    };
  }
}

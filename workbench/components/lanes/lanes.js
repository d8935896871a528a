// The element: events in, one message out per cell turned over.

export default function lanes(call) {
  return mount(Lanes, ".lanes", call);
}

class Lanes extends CellMap {
  constructor(root) {
    super(root, { focus: [1, 0] });
    // The map above is there to be read.
    const turn = (focus, place) => place[2] || this.turn(focus);
    listenToCells(this, cellAt, () => [this.state.blocks, this.state.steps], turn);
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
    this.name(data.title, state.blocks, state.steps);
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
}

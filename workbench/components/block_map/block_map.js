// The element: events in, one message out per chosen block.

export default function blockMap(call) {
  return mount(BlockMap, ".block-map", call);
}

class BlockMap extends CellMap {
  constructor(root) {
    super(root, { chosen: null });
    listenToCells(this, placeAt, () => [this.state.blocks, this.state.steps], ([block]) => this.choose(block));
  }

  receive(data) {
    const { state } = this;
    const column = (table, name) => Array.from(table.getChild(name).toArray());
    const marginal = (table) => Object.fromEntries(["mean", "low", "high", "n"].map((name) => [name, column(table, name)]));
    Object.assign(state, {
      blocks: data.blocks, steps: data.timesteps.length, timesteps: data.timesteps, limits: data.limits,
      marginalLimits: data.marginalLimits, palette: data.palette, samples: data.samples,
      values: column(data.cells, "value"), byBlock: marginal(data.byBlock), byStep: marginal(data.byStep),
    });
    if (this.received !== data.chosen) {
      this.received = data.chosen;
      state.chosen = data.chosen;
      if (data.chosen !== null) state.focus = [data.chosen, state.focus[1]];
    }
    state.focus = [Math.min(state.focus[0], state.blocks - 1), Math.min(state.focus[1], state.steps - 1)];
    state.hover = null;
    this.name(`${data.title} by block and timestep`, state.blocks, state.steps);
    const set = (selector, words) => (this.root.querySelector(selector).textContent = words);
    set(".low", formatNumber(state.limits[0]));
    set(".high", formatNumber(state.limits[1]));
    set(".symbol", data.symbol);
    this.root.querySelector(".scale i").style.background = `linear-gradient(to right, ${state.palette.join(", ")})`;
    this.theme = readTheme(this.root);
    this.schedule();
  }

  draw() {
    this.frame = 0;
    const { state, root } = this;
    if (!state.values) return;
    // Hidden until now: nobody meets a grid without a name.
    root.hidden = false;
    if (!root.clientWidth) return;
    this.layout = mapLayout(root.clientWidth, state.blocks, state.steps);
    drawMap(prepare(this.canvas, this.layout.width, this.layout.height), this.layout, state, this.theme);
    const shown = state.hover ?? (state.focused ? state.focus : state.chosen === null ? null : [state.chosen, null]);
    this.readout.textContent = shown ? this.describe(shown) : "Point at a cell to read it, click to choose its block.";
    this.cells.querySelector("[role=row]").setAttribute("aria-rowindex", state.focus[0] + 1);
    this.cell.setAttribute("aria-colindex", state.focus[1] + 1);
    this.cell.setAttribute("aria-selected", state.focus[0] === state.chosen);
    this.cell.textContent = this.describe(state.focus);
  }

  describe([block, step]) {
    const { state } = this;
    if (step === null) {
      const { mean, low, high, n } = state.byBlock;
      if (Number.isNaN(mean[block])) return `block ${block} · not captured`;
      const interval = Number.isNaN(low[block]) ? "" : ` [${formatNumber(low[block])}, ${formatNumber(high[block])}]`;
      return `block ${block} · ${formatNumber(mean[block])}${interval} over the timesteps · n ${n[block]}`;
    }
    const value = state.values[step * state.blocks + block];
    const words = Number.isNaN(value) ? "not captured" : `${formatNumber(value)} · n ${state.samples}`;
    return `block ${block} · t ${state.timesteps[step].toFixed(0)} · ${words}`;
  }

  choose(block) {
    const { state } = this;
    const same = block === state.chosen;
    state.chosen = block;
    this.schedule();
    if (same) return;
    this.live.textContent = `chosen ${this.describe([block, null])}`;
    this.received = block;
    this.trigger("block", block);
  }
}

// The element: events in, one message out per chosen head.

export default function differenceGrid(call) {
  return mount(DifferenceGrid, ".difference-grid", call);
}

class DifferenceGrid extends CellMap {
  constructor(root) {
    super(root, { pinned: null });
    listenToCells(this, headAt, () => [this.state.blocks, this.state.heads], (place) => this.choose(place));
  }

  receive(data) {
    const { state } = this;
    const names = ["a", "b", "difference", "low", "high", "n", "clear", "roleA", "roleB", "absentA", "absentB"];
    const columns = names.map((name) => [name, Array.from(data.cells.getChild(name).toArray(), Number)]);
    Object.assign(state, Object.fromEntries(columns), {
      blocks: data.blocks, heads: data.heads, limit: data.limit, palette: data.palette, symbol: data.symbol,
    });
    if (String(this.received) !== String(data.pinned)) {
      this.received = data.pinned;
      state.pinned = data.pinned;
      if (data.pinned !== null) state.focus = data.pinned;
    }
    state.focus = [Math.min(state.focus[0], state.blocks - 1), Math.min(state.focus[1], state.heads - 1)];
    state.hover = null;
    this.name(`B minus A of the ${data.title} by block and head`, state.blocks, state.heads);
    const set = (selector, words) => (this.root.querySelector(selector).textContent = words);
    set(".low", signed(-state.limit));
    set(".high", signed(state.limit));
    set(".symbol", `B − A of ${data.symbol}, 0 in the middle`);
    set(".legend", data.legend);
    this.root.querySelector(".scale i").style.background = `linear-gradient(to right, ${state.palette.join(", ")})`;
    this.theme = readTheme(this.root);
    this.schedule();
  }

  draw() {
    this.frame = 0;
    const { state, root } = this;
    if (!state.difference) return;
    // Hidden until now: nobody meets a grid without a name.
    root.hidden = false;
    if (!root.clientWidth) return;
    this.layout = gridLayout(root.clientWidth, state.blocks, state.heads);
    drawGrid(prepare(this.canvas, this.layout.width, this.layout.height), this.layout, state, this.theme);
    const shown = state.hover ?? (state.focused ? state.focus : state.pinned);
    this.readout.textContent = shown ? this.describe(shown) : "Point at a head to read it, click to choose it.";
    this.cells.querySelector("[role=row]").setAttribute("aria-rowindex", state.focus[0] + 1);
    this.cell.setAttribute("aria-colindex", state.focus[1] + 1);
    this.cell.setAttribute("aria-selected", String(state.focus) === String(state.pinned));
    this.cell.textContent = this.describe(state.focus);
  }

  describe([block, head]) {
    const { state } = this;
    const index = block * state.heads + head, place = `block ${block}, head ${head}`;
    const side = (name, value, role) =>
      state[`absent${name}`][index] ? `absent in ${name}` : [`${name} ${formatNumber(value)}`, ROLES[role]].join(" ").trim();
    const both = `${side("A", state.a[index], state.roleA[index])}, ${side("B", state.b[index], state.roleB[index])}`;
    if (Number.isNaN(state.difference[index])) return `${place} · ${both}`;
    const interval = Number.isNaN(state.low[index]) ? "" : ` [${signed(state.low[index])}, ${signed(state.high[index])}]`;
    return `${place} · B − A ${signed(state.difference[index])}${interval} · ${both} · n ${state.n[index]}`;
  }

  choose(place) {
    const { state } = this;
    const same = String(place) === String(state.pinned);
    state.pinned = [...place];
    this.schedule();
    if (same) return;
    this.live.textContent = `chosen ${this.describe(place)}`;
    this.received = state.pinned;
    this.trigger("cell", state.pinned);
  }
}

// The element: it reads a cell under the pointer or the keys, and talks to the players of its page inside the browser.

export default function frameMap(call) {
  return mount(FrameMap, ".frame-map", call);
}

class FrameMap extends CellMap {
  constructor(root) {
    super(root, { frame: null });
    this.link = new FrameLink({ onShown: (frame) => this.mark(frame) });
    listenToCells(this, framesAt, () => [this.state.frames, this.state.frames], ([query]) => this.choose(query));
  }

  disconnect() {
    super.disconnect();
    this.link.disconnect();
  }

  receive(data) {
    const { state } = this;
    Object.assign(state, {
      frames: data.frames, high: data.high || 1, palette: data.palette, hover: null,
      values: Array.from(data.cells.getChild("value").toArray()),
    });
    if (this.received !== data.frame || state.frame >= data.frames) {
      this.received = data.frame;
      state.frame = data.frame;
    }
    state.focus = state.focus.map((index) => Math.min(index, data.frames - 1));
    this.link.connect(data.link);
    this.name(`${data.title}: attention from query frames (down) to key frames (across)`, data.frames, data.frames);
    this.theme = readTheme(this.root);
    this.root.hidden = false;
    this.schedule();
  }

  mark(frame) {
    if (frame === this.state.frame || frame >= this.state.frames) return;
    this.state.frame = frame;
    this.schedule();
  }

  draw() {
    this.frame = 0;
    const { state, root } = this;
    if (!root.clientWidth || !state.values) return;
    this.layout = frameMapLayout(root.clientWidth, state.frames);
    drawFrameMap(prepare(this.canvas, this.layout.width, this.layout.height), this.layout, state, this.theme);
    const shown = state.hover ?? (state.focused ? state.focus : null);
    this.root.dataset.frame = state.frame ?? "";
    this.readout.textContent = shown ? this.describe(shown) : this.words();
    this.cell.parentElement.setAttribute("aria-rowindex", state.focus[0] + 1);
    this.cell.setAttribute("aria-colindex", state.focus[1] + 1);
    this.cell.setAttribute("aria-selected", state.focus[0] === state.frame);
    this.cell.textContent = this.describe(state.focus);
  }

  words() {
    return `Query frames down, key frames across${this.link.name ? "; a click seeks" : ""}`;
  }

  describe([query, key]) {
    const { values, frames } = this.state, value = values[query * frames + key];
    const share = Number.isNaN(value) ? "not captured" : `${value.toFixed(3)} (uniform ${(1 / frames).toFixed(3)})`;
    return `from frame ${query} to frame ${key} · ${share}`;
  }

  choose(query) {
    this.mark(query);
    this.live.textContent = `frame ${query}`;
    this.link.want(query);
  }
}

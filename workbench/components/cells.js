// What canvases of cells share: one object per mounted element, kept since Streamlit calls the default export again on
// every run and every change of theme; its life, and the pointer and the keys over its cells.

const mounted = new WeakMap();

/** The object of an element, made once and given the data of every run of the page; returns Streamlit's clean-up. */
export function mount(Kind, selector, { data, parentElement, setTriggerValue }) {
  let found = mounted.get(parentElement);
  if (!found || !found.root.isConnected) {
    found?.disconnect();
    found = new Kind(parentElement.querySelector(selector));
    mounted.set(parentElement, found);
  }
  found.trigger = setTriggerValue;
  found.connect();
  found.receive(data);
  // Streamlit may run the clean-up of an overtaken call while the element lives on.
  const call = (found.lastCall = {});
  return () => {
    if (found.lastCall === call) found.disconnect();
  };
}

/**
 * Hover, focus and choice over the cells of `map`. `at(layout, x, y)` gives the place [row, column, …] there or null,
 * `size()` rows and columns, `choose(focus, place)` acts on a click or on Enter.
 */
export function listenToCells(map, at, size, choose) {
  const { cells, state } = map;
  const under = (event) => {
    const box = map.canvas.getBoundingClientRect();
    return map.layout ? at(map.layout, event.clientX - box.left, event.clientY - box.top) : null;
  };
  const hover = (place) => {
    if (String(place) === String(state.hover)) return;
    state.hover = place;
    map.schedule();
  };
  cells.onpointermove = (event) => hover(under(event));
  cells.onpointerleave = () => hover(null);
  cells.onclick = (event) => {
    const place = under(event);
    if (!place) return;
    state.focus = [place[0], place[1] ?? state.focus[1]];
    choose(state.focus, place);
  };
  cells.onfocus = cells.onblur = () => {
    state.focused = cells.matches(":focus-visible");
    map.schedule();
  };
  cells.onkeydown = (event) => {
    if (event.altKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(state.focus, state.focus);
      return;
    }
    const place = cellAfterKey(state.focus, event.key, ...size(), event.ctrlKey);
    if (!place) return;
    event.preventDefault();
    Object.assign(state, { focus: place, hover: null, focused: true });
    map.live.textContent = map.describe(place);
    map.schedule();
  };
}

/** One mounted canvas of cells: what it consists of, when it lives, and when it is drawn. `draw()` is the element's own. */
export class CellMap {
  constructor(root, state) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    [this.cells, this.canvas, this.cell, this.readout, this.live] = [".cells", "canvas", "#cell", ".readout", ".live"].map(find);
    this.state = { hover: null, focus: [0, 0], focused: false, ...state };
    this.observer = new ResizeObserver(() => this.schedule());
  }

  connect() {
    this.observer.observe(this.root);
  }

  disconnect() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  /** The grid's name and size, for assistive technology. */
  name(label, rows, columns) {
    const attributes = { "aria-label": label, "aria-rowcount": rows, "aria-colcount": columns };
    Object.entries(attributes).forEach(([name, value]) => this.cells.setAttribute(name, value));
  }
}

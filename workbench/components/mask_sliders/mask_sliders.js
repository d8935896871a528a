// The element: p and α as sliders with a field each. Everything they change is counted here at once; a release, a field
// that is left or keys that rest send one message.

const NAMES = ["ratio", "alpha"], KEYS_REST_MS = 350;

export default function maskSliders(call) {
  return mount(MaskSliders, ".mask-sliders", call);
}

class MaskSliders {
  constructor(root) {
    this.root = root;
    this.controls = Object.fromEntries(NAMES.map((name) => {
      const row = root.querySelector(`[data-name="${name}"]`);
      return [name, { row, slider: row.querySelector("[type=range]"), field: row.querySelector("[type=number]") }];
    }));
    [this.note, this.words, this.sizes, this.live] = [".note", ".words", "tbody", ".live"].map((selector) => root.querySelector(selector));
    this.state = {};
    this.echo = new Echo();
    this.link = new PageLink({ [THRESHOLDS_MOVED]: ({ thresholds }) => this.change({ thresholds }) });
    NAMES.forEach((name) => this.listen(name));
  }

  connect() {}

  disconnect() {
    this.link.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = 0;
  }

  /** What Python says: scores are taken as they are, p and α only when Python changed them. */
  receive(data) {
    const column = (name) => data.columns.includes(name) ? Float64Array.from(data.table.getChild(name).toArray()) : null;
    const { blocks, heads, floor, neurons, multiple, allocation, pruneNeurons, protects, costs } = data;
    this.given = { blocks, heads, floor, neurons, multiple, allocation, pruneNeurons, protects, costs };
    Object.assign(this.given, { ratios: column("ratio"), scores: column("score"), cross: column("cross") });
    this.state.thresholds = data.thresholds;
    this.asked = data.asked;
    const news = this.echo.isNews([data.ratio, data.alpha]);
    if (news && !this.moving) Object.assign(this.state, { ratio: data.ratio, alpha: data.alpha });
    if (!data.asked) this.state.ratio = data.ratio;
    this.controls.ratio.row.hidden = !data.asked;
    this.note.hidden = data.protects;
    NAMES.forEach((name) => this.range(name, data[`${name}Range`], data[`${name}Step`]));
    for (const input of [this.controls.alpha.slider, this.controls.alpha.field]) input.disabled = !data.protects;
    this.link.connect(data.link);
    this.root.hidden = false;
    this.schedule();
  }

  range(name, [low, high], step) {
    const { slider, field } = this.controls[name];
    Object.assign(this.controls[name], { low, high, step });
    // A value from elsewhere may lie beside the slider's own steps, and above the part of the range that is usual.
    Object.assign(slider, { min: low, max: Math.max(Math.min(high, name === "alpha" ? 3 : high), this.state[name]), step });
    Object.assign(field, { min: low, max: high, step });
  }

  listen(name) {
    const { slider, field } = this.controls[name];
    const here = () => this.controls[name];
    // In braces: a handler that returns false would cancel the drag.
    slider.onpointerdown = () => {
      this.byKeys = false;
    };
    slider.onkeydown = () => {
      this.byKeys = true;
    };
    slider.oninput = () => this.move(name, onGrid(slider.valueAsNumber, [here().low, here().high], here().step));
    slider.onchange = () => this.release(this.byKeys ? KEYS_REST_MS : 0);
    slider.onblur = () => this.flush();
    field.oninput = () => {
      const value = field.valueAsNumber;
      if (value >= here().low && value <= here().high) this.move(name, Number(value.toPrecision(6)));
    };
    field.onchange = () => {
      const value = field.valueAsNumber;
      if (Number.isFinite(value)) this.move(name, Number(clamp(value, here().low, here().high).toPrecision(6)));
      this.written = null;
      this.release(0);
      this.schedule();
    };
    field.onfocus = () => (this.written = name);
    field.onblur = () => (this.written = null);
  }

  move(name, value) {
    if (value === null || value === this.state[name]) return;
    this.before ??= [this.state.ratio, this.state.alpha];
    this.moving = true;
    this.change({ [name]: value });
  }

  change(values) {
    Object.assign(this.state, values);
    this.schedule();
  }

  /** A held or repeated key is one movement: it is released when the keys rest. */
  release(after) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), after);
    if (!after) this.flush();
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = 0;
    const value = [this.state.ratio, this.state.alpha], before = this.before;
    this.before = undefined;
    this.moving = false;
    if (!before || String(value) === String(before)) return;
    const { self } = maskAt(this.given, this.state);
    this.live.textContent = `p ${value[0]}, α ${value[1]}: ${self.length - sum(self)} of ${self.length} heads removed`;
    this.echo.send(value);
    this.trigger("mask", { ratio: this.asked ? value[0] : null, alpha: value[1] });
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { given, state } = this;
    const mask = maskAt(given, state);
    for (const name of NAMES) {
      const { slider, field } = this.controls[name];
      slider.value = state[name];
      slider.setAttribute("aria-valuetext", String(state[name]));
      if (this.written !== name || !this.moving) field.value = String(state[name]);
    }
    this.words.textContent = describeMask(given, mask);
    this.sizes.replaceChildren(...given.costs.map((cost, i) => this.row(cost, mask.sizes[i])));
    this.link.tell(MASK_MOVED, { removed: mask.self.map((kept) => 1 - kept), flipped: mask.flipped });
  }

  row(cost, size) {
    const row = document.createElement("tr"), name = document.createElement("th");
    name.scope = "row";
    name.textContent = cost.title;
    row.append(name);
    const cells = [["", formatSize(cost.name, cost.dense)], ["after", formatSize(cost.name, size)], ["", `${(100 * size / cost.dense).toFixed(1)} %`]];
    for (const [kind, words] of cells) {
      const cell = document.createElement("td");
      cell.className = kind;
      cell.textContent = words;
      row.append(cell);
    }
    row.dataset.name = cost.name;
    row.dataset.size = size;
    return row;
  }
}

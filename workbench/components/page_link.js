// Components of one page that follow one another inside the browser, without a byte to the server: each tells events to
// those that share its link's name, and hears theirs.

export class PageLink {
  /** handlers: event → handler(detail). */
  constructor(handlers) {
    this.handlers = Object.entries(handlers).map(([name, handler]) => [
      name, ({ detail }) => (this.name && detail.link === this.name ? handler(detail) : undefined),
    ]);
  }

  connect(name) {
    this.disconnect();
    this.name = name;
    if (name) for (const [event, handler] of this.handlers) window.addEventListener(event, handler);
  }

  disconnect() {
    for (const [event, handler] of this.handlers) window.removeEventListener(event, handler);
  }

  tell(event, detail) {
    if (this.name) window.dispatchEvent(new CustomEvent(event, { detail: { link: this.name, ...detail } }));
  }
}

/** Thresholds while their handles move (`thresholds`), and the mask that follows (`removed`, `flipped` per head). */
export const THRESHOLDS_MOVED = "pare-thresholds-moved", MASK_MOVED = "pare-mask-moved";

// Elements of one page that show the same latent frame: a player says which one it shows, a frame map asks for another.
// They talk inside the browser, so a playing video moves its mark without a byte to the server.

const SHOWN = "pare-frame-shown", WANTED = "pare-frame-wanted";

export class FrameLink {
  /** onShown(latentFrame) for whoever marks frames, onWanted(latentFrame) for whoever plays them. */
  constructor({ onShown, onWanted }) {
    this.handlers = [[SHOWN, onShown], [WANTED, onWanted]].filter(([, handler]) => handler).map(([name, handler]) => [
      name, ({ detail }) => (this.name && detail.link === this.name ? handler(detail.frame) : undefined),
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

  show(frame) {
    this.tell(SHOWN, frame);
  }

  want(frame) {
    this.tell(WANTED, frame);
  }

  tell(event, frame) {
    if (this.name) window.dispatchEvent(new CustomEvent(event, { detail: { link: this.name, frame } }));
  }
}

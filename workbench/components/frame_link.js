// Elements of one page that show the same latent frame: a player says which one it shows, a frame map asks for another.
// They talk inside the browser, so a playing video moves its mark without a byte to the server.

const SHOWN = "pare-frame-shown", WANTED = "pare-frame-wanted";

export class FrameLink extends PageLink {
  /** onShown(latentFrame) for whoever marks frames, onWanted(latentFrame) for whoever plays them. */
  constructor({ onShown, onWanted }) {
    super({
      ...(onShown && { [SHOWN]: ({ frame }) => onShown(frame) }),
      ...(onWanted && { [WANTED]: ({ frame }) => onWanted(frame) }),
    });
  }

  show(frame) {
    this.tell(SHOWN, { frame });
  }

  want(frame) {
    this.tell(WANTED, { frame });
  }
}

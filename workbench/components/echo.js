// Python echoes what the browser sent, sometimes late. Only what someone else changed is news.

export class Echo {
  constructor() {
    this.received = undefined;
    this.sent = [];
  }

  /** Remember a value that goes to Python. */
  send(value) {
    this.sent.push(JSON.stringify(value));
  }

  /** Whether Python changed the value; its echo of something that was overtaken in the meantime is no news. */
  isNews(value) {
    const text = JSON.stringify(value);
    const changed = this.received !== text, echo = this.sent.indexOf(text);
    this.received = text;
    if (changed || echo >= 0) this.sent = this.sent.slice(echo + 1 || Infinity);
    return changed && echo < 0 && this.sent.length === 0;
  }
}

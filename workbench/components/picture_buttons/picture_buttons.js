// The browser draws the figure with our server's own copy of plotly.js, fetched at the first click and never before.

const PNG_SCALE = 2;
const SCRIPT = "script[data-pare-plotly]";

export default function pictureButtons({ data, parentElement }) {
  const root = parentElement.querySelector(".pictures");
  const status = root.querySelector("[role=status]");
  const buttons = [...root.querySelectorAll("button")];
  for (const button of buttons) {
    button.setAttribute("aria-label", `${data.title} as ${button.textContent}`);
    button.onclick = async () => {
      setBusy(buttons, true);
      status.textContent = "Drawing…";
      try {
        const name = `${data.name}.${button.dataset.format}`;
        save(await draw(data, button.dataset.format), name);
        status.textContent = `Saved ${name}`;
      } catch (error) {
        status.textContent = `Not saved: ${error.message}`;
      } finally {
        setBusy(buttons, false);
      }
    };
  }
  root.hidden = false;
}

function setBusy(buttons, busy) {
  for (const button of buttons) button.disabled = busy;
}

async function draw({ figure, width, height, script, title }, format) {
  const plotly = await loadPlotly(script);
  const scale = format === "png" ? PNG_SCALE : 1;
  const address = await plotly.toImage(JSON.parse(figure), { format, width, height, scale });
  const [head, body] = splitOnce(address, ",");
  if (format === "svg") return new Blob([described(decodeURIComponent(body), title)], { type: "image/svg+xml" });
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length).split(";")[0] });
}

// A picture says what it shows, to people who do not see it and to whoever finds the file later.
function described(text, title) {
  const page = new DOMParser().parseFromString(text, "image/svg+xml");
  const element = page.createElementNS("http://www.w3.org/2000/svg", "title");
  element.textContent = title;
  page.documentElement.prepend(element);
  return new XMLSerializer().serializeToString(page);
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return [text.slice(0, at), text.slice(at + separator.length)];
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The download has the blob by then; without this a page open all day would keep every picture.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function loadPlotly(address) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  return new Promise((resolve, reject) => {
    let script = document.querySelector(SCRIPT);
    if (!script) {
      script = document.createElement("script");
      script.dataset.parePlotly = "";
      script.src = address;
      document.head.append(script);
    }
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      script.remove();
      reject(new Error("the server's copy of plotly.js did not arrive"));
    });
  });
}

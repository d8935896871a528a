// Draws the figures of a report in the colours that the reader's system asks for, and in black for paper.

const SETTINGS = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
const DARK = matchMedia("(prefers-color-scheme: dark)");

function inks(paper) {
  const ink = paper ? "#000000" : getComputedStyle(document.body).color;
  return { "font.color": ink };
}

function coloured(layout, paper) {
  return { ...layout, font: { ...layout.font, color: inks(paper)["font.color"] } };
}

const figures = [...document.querySelectorAll(".figure")];
for (const figure of figures) {
  const { data, layout } = JSON.parse(figure.nextElementSibling.textContent);
  Plotly.newPlot(figure, data, coloured(layout, false), SETTINGS);
}

function recolour(paper) {
  for (const figure of figures) Plotly.relayout(figure, inks(paper));
}

DARK.addEventListener("change", () => recolour(false));
addEventListener("beforeprint", () => recolour(true));
addEventListener("afterprint", () => recolour(false));

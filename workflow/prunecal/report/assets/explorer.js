// The chart above the table: native controls select rows of the table, Vega-Lite draws them.
const MOST_SELECTED = 12; // strategies when the page opens: more lines cannot be told apart
const control = name => document.getElementById(name);
const WITHOUT = "; cells without visual tokens are only on an axis that is not logarithmic";
const counted = (count, one, several) => `${count} ${count === 1 ? one : several}`;
const library = unpacked(BUNDLE).text().then(text => {
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script); // runs at once
});
let view = null, turn = 0;

function fill(select, values) {
  const before = select.value;
  select.replaceChildren(...values.map(value => new Option(value, value)));
  if (values.includes(before)) select.value = before;
}

// The values of a column among rows that begin with the texts selected so far.
function choices(cells, prefix, column) {
  return [...new Set(cells.filter(row => row.startsWith(prefix)).map(row => part(row, column)))];
}

function refill(cells) {
  let prefix = "";
  ["model", "dataset", "subset"].forEach((name, column) => {
    fill(control(name), choices(cells, prefix, column));
    prefix += control(name).value + "\t";
  });
  return prefix;
}

function swatch({ colour, marker }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1 -1 2 2");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", marker);
  path.setAttribute("fill", colour);
  svg.append(path);
  return svg;
}

const boxes = STRATEGIES.map((strategy, place) => {
  const box = Object.assign(document.createElement("input"), { type: "checkbox" });
  box.checked = strategy.reference || place < MOST_SELECTED;
  const label = document.createElement("label");
  label.append(box, swatch(strategy), strategy.name);
  control("strategies").append(label);
  return box;
});

// A row's numbers for the chart, null if it lacks the metric, its cost is not known, or it has no
// place on a logarithmic axis: answers without an image have 0 tokens.
function point(row) {
  const at = NAMES + 2 * Number(control("metric").value), against = control("against").value;
  const [model, , , strategy, budget] = row.split("\t", NAMES);
  const value = parseFloat(part(row, at)), interval = part(row, at + 1);
  let x = Number(budget);
  if (against !== "kept") x = parseFloat(part(row, NAMES + 2 * COST));
  if (against === "operations") x *= RATES[model];
  if (isNaN(value) || isNaN(x) || (x <= 0 && control("log").checked)) return null;
  const [low, high] = interval ? interval.slice(1, -1).split(",").map(Number) : [value, value];
  const shown_x = x.toLocaleString("en", { maximumSignificantDigits: 4 });
  return { strategy, budget, x, shown_x, value, shown: part(row, at), low, high, interval };
}

function titled(points) {
  const spec = structuredClone(SPEC), name = select => select.selectedOptions[0].text;
  const [x, y] = [name(control("against")), name(control("metric"))];
  const type = control("log").checked ? "log" : "linear";
  for (const { encoding } of spec.layer) {
    encoding.y.title = y;
    if (!encoding.x) continue;
    encoding.x.title = x;
    encoding.x.scale.type = type;
  }
  const references = STRATEGIES.filter(one => one.reference).map(one => one.name);
  spec.datasets = {
    cells: points,
    reference: points.filter(one => references.includes(one.strategy)),
  };
  spec.description = `${y} against ${x}: the numbers are in the table below the chart`;
  return spec;
}

async function draw() {
  const mine = ++turn, selected = STRATEGIES.filter((_, place) => boxes[place].checked);
  const names = new Map(selected.map((one, place) => [one.name, place]));
  const prefix = refill(rows);
  const here = rows.filter(row => row.startsWith(prefix) && names.has(part(row, 3)));
  const without = control("log").checked && here.some(row => part(row, 4) === "0");
  const points = here
    .map(point)
    .filter(Boolean)
    .sort((a, b) => names.get(a.strategy) - names.get(b.strategy) || a.x - b.x);
  control("x").textContent = control("against").selectedOptions[0].text;
  control("numbers").replaceChildren(...points.map(({ strategy, budget, shown_x, shown, interval }) => {
    const tr = document.createElement("tr");
    for (const text of [strategy, budget, shown_x, shown, interval]) {
      tr.insertCell().textContent = text;
    }
    return tr;
  }));
  const strategies = new Set(points.map(one => one.strategy)).size;
  control("drawn").textContent = points.length
    ? counted(points.length, "cell", "cells") + " of " +
      counted(strategies, "strategy", "strategies") + (without ? WITHOUT : "")
    : "No cell of these has both numbers; select other strategies, a metric or an axis.";
  const actions = { export: true, source: false, compiled: false, editor: false };
  await library;
  const made = await vegaEmbed(control("chart"), titled(points), { renderer: "svg", actions });
  if (mine !== turn) return made.finalize();
  control("chart").querySelector("summary").ariaLabel = "Save the chart";
  if (view) view.finalize();
  view = made;
}

function set(checked) {
  for (const box of boxes) box.checked = checked;
  return draw();
}

control("controls").addEventListener("input", draw);
control("controls").addEventListener("submit", event => event.preventDefault());
control("strategies").addEventListener("input", draw);
control("every").addEventListener("click", () => set(true));
control("none").addEventListener("click", () => set(false));
const explored = ready.then(draw);

// A table whose rows are unpacked once and put on the page a few at a time: 50,000 of them would
// take the browser half a minute.
const PAGE = 200;
const body = document.querySelector("#cells tbody"), search = document.getElementById("search");
const count = document.getElementById("count"), more = document.getElementById("more");
let rows = [], selected = [], shown = 0;

// A row stays one text until it is on the page: its parts would be millions of objects.
function part(row, at) {
  let start = 0;
  for (; at; at--) start = row.indexOf("\t", start) + 1;
  const end = row.indexOf("\t", start);
  return end < 0 ? row.slice(start) : row.slice(start, end);
}

function line(text) {
  const row = text.split("\t");
  const tr = document.createElement("tr");
  for (let at = 0; at < row.length; at += at < NAMES ? 1 : 2) {
    const td = tr.insertCell();
    td.textContent = row[at];
    if (at < NAMES) continue;
    td.className = "number";
    if (row[at + 1]) {
      const interval = document.createElement("small");
      interval.textContent = row[at + 1];
      td.append(" ", interval);
    }
  }
  return tr;
}

function show() {
  body.append(...selected.slice(shown, shown + PAGE).map(line));
  shown = Math.min(shown + PAGE, selected.length);
  more.hidden = shown === selected.length;
  count.textContent = `${selected.length} of ${rows.length} rows, ${shown} on the page`;
}

function restart() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = row => row.split("\t", NAMES).join(" ").toLowerCase();
  selected = rows.filter(row => !words.length || words.every(word => text(row).includes(word)));
  shown = 0;
  body.replaceChildren();
  show();
}

// Numbers by size, texts by letters, nothing last.
function sorted(column, down) {
  const at = column < NAMES ? column : NAMES + 2 * (column - NAMES);
  const keyed = rows.map(row => {
    const text = part(row, at);
    return [text, parseFloat(text), row];
  });
  const numbers = keyed.every(([text, number]) => text === "" || !isNaN(number));
  keyed.sort(([a, x], [b, y]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = numbers ? x - y : (a > b) - (a < b);
    return down ? -order : order;
  });
  return keyed.map(([, , row]) => row);
}

document.querySelectorAll("th button").forEach((button, column) => {
  button.addEventListener("click", () => {
    const down = button.parentNode.getAttribute("aria-sort") === "ascending";
    document.querySelectorAll("#cells th").forEach(head => head.removeAttribute("aria-sort"));
    button.parentNode.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows = sorted(column, down);
    restart();
  });
});
search.addEventListener("input", restart);
more.addEventListener("click", show);
const ready = unpacked(PACKED).text().then(text => {
  rows = text ? text.split("\n") : [];
  restart();
});

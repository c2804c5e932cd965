"use strict";
(() => {
const root = document.documentElement;
const data = JSON.parse(document.getElementById("data").textContent);
const make = (name, attributes, text = "") => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};
root.classList.add("js");

// Light and dark.
const theme = document.getElementById("theme");
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
nameTheme();

// What is said of the place that is pointed at.
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; document.querySelectorAll(".mark").forEach((mark) => mark.remove()); };
const trained = (row) => {
  const rates = data.multipliers[row];
  const parts = data.blocks.map((name, i) => (rates[i] === null ? "" : `${name} ×${rates[i]}`)).filter(Boolean);
  return parts.length > 12 ? `${parts.slice(0, 12).join(", ")}, …` : parts.join(", ");
};
const spots = (kind, figure) => {
  if (!figure.map) return figure[kind].map((place, i) => ({
    x: place[0], y: place[1], width: place[2] || 0, height: place[3] || 0,
    row: figure.rows ? figure.rows[i] : null,
    text: figure.rows ? `${data.individuals[figure.rows[i]]}\n${trained(figure.rows[i])}` : figure.texts[i],
  }));
  const [left, top, right, bottom] = figure[kind];
  const width = (right - left) / data.multipliers.length, height = (bottom - top) / data.blocks.length;
  return data.multipliers.flatMap((rates, row) => rates.map((rate, block) => ({
    x: left + row * width, y: top + block * height, width, height, row,
    text: `${data.blocks[block]} ${rate === null ? "frozen" : `×${rate}`}\n${data.individuals[row]}`,
  })));
};
const distance = (spot, x, y) => Math.hypot(
  Math.max(spot.x - x, 0, x - spot.x - spot.width), Math.max(spot.y - y, 0, y - spot.y - spot.height));
const show = (svg, spot) => {
  hide();
  const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
  const mark = document.createElementNS(svg.namespaceURI, "rect");
  const grow = spot.width ? 1 : 5;
  for (const [key, value] of Object.entries({
    class: "mark", x: spot.x - grow, y: spot.y - grow, rx: spot.width ? 1 : grow,
    width: spot.width + 2 * grow, height: spot.height + 2 * grow,
  })) mark.setAttribute(key, value);
  svg.append(mark);
  tip.textContent = spot.text;
  tip.hidden = false;
  const x = box.left + (spot.x + spot.width / 2) * scale, y = box.top + spot.y * scale;
  const left = Math.min(Math.max(8, x - tip.offsetWidth / 2), root.clientWidth - tip.offsetWidth - 8);
  const above = y - tip.offsetHeight - 12;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : y + spot.height * scale + 14) + scrollY}px`;
};
const go = (spot) => {
  const row = spot.row === null ? null : document.getElementById(`individual-${data.trials[spot.row]}`);
  if (!row) return;
  row.closest("details").open = true;
  row.hidden = false;
  document.querySelectorAll("tr.found").forEach((other) => other.classList.remove("found"));
  row.classList.add("found");
  hide();
  row.scrollIntoView({ block: "center" });
  row.focus({ preventScroll: true });
};
for (const [name, figure] of Object.entries(data.figures)) for (const kind of ["wide", "narrow"]) {
  const svg = document.querySelector(`[data-figure="${name}"] .${kind} svg`);
  const all = spots(kind, figure);
  if (!svg || !all.length) continue;
  let now = -1;
  const point = (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    now = all.reduce((best, spot, i) => (best < 0 || distance(spot, x, y) < distance(all[best], x, y) ? i : best), -1);
    if (distance(all[now], x, y) > 14) { now = -1; hide(); } else show(svg, all[now]);
  };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("click", (event) => { point(event); if (now >= 0) go(all[now]); });
  svg.addEventListener("keydown", (event) => {
    const rows = figure.map ? data.blocks.length : 1;
    const step = { ArrowRight: rows, ArrowLeft: -rows, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) now = now < 0 ? 0 : Math.min(Math.max(now + step, 0), all.length - 1);
    else if (event.key === "Enter" && now >= 0) return go(all[now]);
    else if (event.key === "Escape") { now = -1; return hide(); }
    else return;
    event.preventDefault();
    show(svg, all[now]);
  });
}

// Tables that can be sorted.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase()
    : cell.dataset.value === "" ? null : Number(cell.dataset.value);
};
const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", class: "sort" }, head.textContent);
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
      // What has no value comes last, either way.
      rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
});

// The table of individuals, filtered.
const form = document.getElementById("filter");
if (form) {
  const rows = [...document.querySelectorAll("#individuals-table tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = form.elements.state.value;
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !((!state || row.dataset.state === state) && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    form.elements.shown.value = `${shown} of ${rows.length} shown`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}
})();

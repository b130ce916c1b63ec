// Keeps the list and the counts up to date. The open email is never touched while a person reads it.
"use strict";

const POLL_MILLISECONDS = 4000;
const CATCH_UP_MILLISECONDS = 500;

const panes = document.querySelector("main.panes");
const list = document.getElementById("rows");
const template = document.getElementById("row").content;
let shown = "";

function buildChip({ kind, text }) {
  const chip = document.createElement("span");
  chip.className = `chip ${kind}`;
  chip.textContent = text;
  return chip;
}

function buildRow(row) {
  const item = template.cloneNode(true);
  const link = item.querySelector("a");
  link.setAttribute("href", row.href);
  if (row.current) link.setAttribute("aria-current", "true");
  for (const name of ["sender", "subject", "time"]) {
    item.querySelector(`[data-field=${name}]`).textContent = row[name];
  }
  item.querySelector("time").setAttribute("datetime", row.datetime);
  item.querySelector("[data-field=chips]").append(...row.chips.map(buildChip));
  return item;
}

function showRows(rows) {
  const text = JSON.stringify(rows);
  if (text === shown) return;
  shown = text;
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const position = list.scrollTop;
  list.replaceChildren(...rows.map(buildRow));
  list.scrollTop = position;
  document.getElementById("no-rows").hidden = rows.length > 0;
  if (focused) [...list.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
}

function show(update) {
  showRows(update.rows);
  for (const element of document.querySelectorAll("[data-count]")) {
    element.textContent = update.counts[element.dataset.count];
  }
  document.getElementById("progress").textContent = update.progress;
  const changed = document.getElementById("changed");
  if (changed) changed.hidden = update.fingerprint === panes.dataset.fingerprint;
}

async function poll() {
  let wait = POLL_MILLISECONDS;
  if (!document.hidden) {
    try {
      const response = await fetch(panes.dataset.updates);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const update = await response.json();
      show(update);
      if (update.catching_up) wait = CATCH_UP_MILLISECONDS;
    } catch {
      document.getElementById("progress").textContent = "Not connected: this may be out of date.";
    }
  }
  setTimeout(poll, wait);
}

// A second click while the first one is on its way would ask about a draft that is decided already.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (document.body.dataset.deciding) event.preventDefault();
    document.body.dataset.deciding = "true";
  });
}
// A rejection has one reason: a chosen one or a written one.
const written = document.getElementById("reason");
const chosen = [...document.querySelectorAll("input[name=offered_reason]")];
written?.addEventListener("input", () => chosen.forEach((radio) => { radio.checked = !written.value && !radio.value; }));
for (const radio of chosen) radio.addEventListener("change", () => { written.value = ""; });

window.addEventListener("pageshow", () => delete document.body.dataset.deciding);

list.querySelector("[aria-current]")?.scrollIntoView({ block: "center" });
setTimeout(poll, CATCH_UP_MILLISECONDS);

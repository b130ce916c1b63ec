// Keeps the list and the counts up to date, and knows the keys. The open email is never touched.
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
for (const form of document.querySelectorAll("form[method=post]")) {
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

const copy = document.getElementById("copy");
if (copy) copy.hidden = false;
copy?.addEventListener("click", async () => {
  await navigator.clipboard.writeText(document.getElementById("proposal").textContent);
  copy.textContent = "Copied";
});

// An opened form is ready to be written in.
function startWriting(details) {
  if (details.open) details.querySelector("textarea, input:not([type=hidden], [type=radio])").focus();
}
for (const details of document.querySelectorAll(".decision details")) {
  details.addEventListener("toggle", () => {
    if (!details.querySelector("form").contains(document.activeElement)) startWriting(details);
  });
}
document.getElementById("edited")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.target.form.querySelector("button").click();
  }
});

// The keys. They can be switched off, for who speaks to the machine or reads with one that uses them.
const KEYS_OFF = "desk-keys-off";
const keysOn = document.getElementById("keys-on");
keysOn.checked = localStorage.getItem(KEYS_OFF) === null;
keysOn.addEventListener("change", () => {
  if (keysOn.checked) localStorage.removeItem(KEYS_OFF);
  else localStorage.setItem(KEYS_OFF, "yes");
});

// Who types words where no form is open means no key by them: a key counts after a pause only. The time is kept
// from page to page, as a key may have led to this one.
const PAUSE_MILLISECONDS = 700;
const TYPED_AT = "desk-typed-at";

function isTyping() {
  const passed = Date.now() - Number(sessionStorage.getItem(TYPED_AT));
  return passed >= 0 && passed < PAUSE_MILLISECONDS;
}

// Only Enter decides on what a key has chosen.
let chosenByKey = null;

function chooseByKey(button) {
  button.focus();
  chosenByKey = button;
  button.addEventListener("blur", () => { chosenByKey = null; }, { once: true });
}

function letGo(event) {
  if (chosenByKey === null || (event.key.length > 1 && event.key !== "Escape")) return;
  chosenByKey.blur();
  if (event.key === " ") event.preventDefault(); // it would press the button before it loses the focus
}

function press(key) {
  const named = document.querySelector(`[data-key="${key}"]`);
  if (key === "j") document.querySelector(".bar a[rel=next]")?.click();
  else if (key === "k") document.querySelector(".bar a[rel=prev]")?.click();
  else if (key === "/") document.getElementById("search").focus();
  else if (!named) return false;
  else if (named.tagName === "BUTTON") {
    if (document.querySelector(".decision details[open]")) return false; // what is typed there is not decided yet
    chooseByKey(named);
  } else {
    const details = named.closest("details");
    if (!details.open) named.click();
    startWriting(details); // at once: the event comes later than the next key of a fast typist
  }
  return true;
}

document.addEventListener("keydown", (event) => {
  letGo(event);
  const isWord = isTyping() && event.key !== "j" && event.key !== "k"; // which decide nothing
  if (event.key.length === 1) sessionStorage.setItem(TYPED_AT, Date.now());
  const isWriting = event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select");
  if (event.key === "Escape" && event.target.closest(".decision details, .search")) {
    event.target.closest("details")?.removeAttribute("open");
    event.target.blur();
    return;
  }
  if (isWriting || event.ctrlKey || event.metaKey || event.altKey || event.repeat || isWord || !keysOn.checked) return;
  if (press(event.key)) event.preventDefault();
});

window.addEventListener("pageshow", () => delete document.body.dataset.deciding);

// A status that was there from the start is not read out: it is written once more.
const said = document.getElementById("said");
if (!said.hidden) setTimeout(() => { said.textContent = said.textContent.trim(); }, CATCH_UP_MILLISECONDS);

list.querySelector("[aria-current]")?.scrollIntoView({ block: "center" });
setTimeout(poll, CATCH_UP_MILLISECONDS);

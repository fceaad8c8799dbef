"use strict";
// Sorting, searching, and a member's attempts in place: the page says all of it without this too.
(() => {
  const table = document.getElementById("scores");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const compare = new Intl.Collator(document.documentElement.lang, { numeric: true }).compare;

  function sortBy(column) {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    const sign = down ? -1 : 1;
    const keyed = [...body.rows].map((row) => {
      const { text, value } = row.cells[column].dataset;
      return { row, key: text === undefined ? value : text, text: text !== undefined };
    });
    // What is not known or not attempted is last, whichever way.
    keyed.sort((a, b) => {
      if (a.key === undefined || b.key === undefined) {
        return (a.key === undefined) - (b.key === undefined);
      }
      return sign * (a.text ? compare(a.key, b.key) : a.key - b.key);
    });
    body.append(...keyed.map((one) => one.row));
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const label = document.createElement("span");
    label.append(...head.childNodes);
    button.append(label);
    button.addEventListener("click", () => sortBy(column));
    head.append(button);
  });
  document.getElementById("hint").hidden = false;

  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const plain = (text) => text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();
  const sought = [...body.rows].map((row) => [row, plain(row.cells[0].textContent)]);

  function filter() {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    let number = 0;
    for (const [row, text] of sought) {
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) number += 1;
    }
    const values = { number, all: sought.length };
    shown.textContent = shown.dataset.text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  search.addEventListener("input", filter);
  search.closest("[hidden]").hidden = false;
  filter();

  const dialog = document.getElementById("dialog");
  const place = dialog.querySelector("div");
  document.getElementById("close").addEventListener("click", () => dialog.close());

  async function open(link) {
    try {
      const answer = await fetch(link.href);
      if (!answer.ok) throw new Error("no page");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      place.replaceChildren(...page.querySelector("main").childNodes);
      dialog.showModal();
    } catch {
      location.href = link.href;
    }
  }

  body.addEventListener("click", (event) => {
    const link = event.target.closest("a.attempts");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(link);
  });
})();

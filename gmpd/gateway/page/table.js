// A table: its filters, its rows, and its state, which is in the URL.

import { colour, h, morph, rich, say, short } from "./dom.js";

/** A link to a view with some parameters changed. */
export function link(path, params, change = {}) {
  const all = Object.entries({ ...params, ...change }).filter(([, v]) => v !== "" && v != null);
  return `#${path}${all.length ? `?${new URLSearchParams(all)}` : ""}`;
}

export function square(name) {
  const dot = h("i", { class: "g" });
  dot.style.background = colour(name);
  return dot;
}

/** A function, which leads to its rows. */
export function fnCell(name, path, params) {
  return h("a", { class: "fn-link", href: link(path, params, { function: name, after: "", offset: "" }), title: name }, square(name), short(name));
}

export function pill(state) {
  return h("span", { class: `pill ${state}` }, state);
}

/** Why a job or a G is where it is. */
export function whyBox({ code, sentence, hint }) {
  return h("div", { class: "why", data: { code } }, h("span", { class: "pill mono" }, code),
    h("p", {}, rich(sentence), hint ? h("span", { class: "dim" }, " ", rich(sentence_of(hint))) : ""));
}

function sentence_of(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

export function factList(facts) {
  return h("dl", { class: "facts wide" },
    facts.filter(([, v]) => v !== null && v !== "" && v !== undefined).flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
}

/** A row: its key, where it leads, its cells. `more` is shown below it. */
export function cells(key, href, ...all) {
  return Object.assign(all, { key, href });
}

export class Table {
  constructor(path, title) {
    this.path = path;
    this.note = h("p", { class: "note dim", role: "status" });
    this.filters = h("div", { class: "filters" });
    this.head = h("thead");
    this.body = h("tbody");
    this.pager = h("nav", { class: "pager", "aria-label": "Pages" });
    this.el = h("section", { class: "panel table-view" },
      h("div", { class: "table-head" }, h("h2", {}, title), this.filters), this.note,
      h("div", { class: "scroll" }, h("table", {}, this.head, this.body)), this.pager);
    this.body.addEventListener("click", (event) => {
      const href = event.target.closest("tr")?.dataset.href;
      if (href && !event.target.closest("a, button") && getSelection().isCollapsed) location.hash = href;
    });
  }

  async load(params) {
    const key = this.key = {};
    try {
      const told = await this.fetch(params);
      if (this.key !== key) return;
      this.params = params;
      this.draw(told, params);
    } catch (error) {
      if (this.key === key) say(this.note, error.message);
    }
  }

  rows(columns, rows, none) {
    morph(this.head, h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each.class,
      "aria-sort": each.order ? (each.order === "up" ? "ascending" : "descending") : null }, each.sort
      ? h("a", { href: each.sort }, each.label, each.order ? (each.order === "up" ? " ↑" : " ↓") : "")
      : each.label))));
    const all = rows.flatMap((row) => {
      const el = h("tr", { tabindex: -1, data: { key: row.key, href: row.href ?? "" }, class: row.class },
        row.map((cell, i) => h("td", { class: columns[i].class, "data-label": columns[i].label }, cell ?? "")));
      if (!row.more) return [el];
      return [el, h("tr", { class: "more", data: { key: `${row.key}+` } }, h("td", { colspan: columns.length }, row.more))];
    });
    morph(this.body, all.length ? all : h("tr", {}, h("td", { class: "none", colspan: columns.length }, rich(none))));
  }

  /** Chips of which one is chosen. */
  filter(name, words, params) {
    return h("div", { class: "chips", role: "group", "aria-label": name, data: { key: name } }, ["", ...words].map((word) => {
      const on = (params[name] ?? "") === word;
      return h("a", { class: `chip ${on ? "on" : ""}`, "aria-current": on ? "true" : null,
        href: link(this.path, params, { [name]: word, after: "", offset: "" }) }, word || "all");
    }));
  }

  search(params, placeholder) {
    if (!this.input) {
      this.input = h("input", { type: "search", placeholder, "aria-label": placeholder, class: "search", data: { key: "search", own: "search" } });
      this.input.addEventListener("change", () => {
        location.hash = link(this.path, this.params, { function: this.input.value.trim(), after: "", offset: "" });
      });
    }
    if (document.activeElement !== this.input) this.input.value = params.function ?? "";
    return this.input;
  }

  /** Links to further pages: [text, href], those that there are. */
  pages(...links) {
    morph(this.pager, links.filter(Boolean).map(([text, href]) => h("a", { class: "chip", href, data: { key: text } }, text)));
  }

  column(name, label, kind, params, start = "down") {
    const sort = params.sort ?? this.sorted, order = params.order ?? "down";
    const other = sort === name && order === "down" ? "up" : "down";
    return {
      label, class: kind, order: sort === name ? order : undefined,
      sort: link(this.path, params, { sort: name, order: sort === name ? other : start, offset: "" }),
    };
  }
}

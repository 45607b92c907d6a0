// Squares, one for each G or job of a queue.

import { colour, count, h, say, short, toggle } from "./dom.js";

/**
 * Squares, one for each G, coloured by function; `total` may be more than are known. Each leads to
 * the jobs of its function. Of a queue one square is in the order of Tab, and arrows go to others.
 */
export class Squares {
  constructor(label) {
    this.more = h("span", { class: "more" });
    this.el = h("div", { class: "squares", role: "group" });
    this.label = label;
    this.cells = [];
    this.shown = 0;
    this.el.addEventListener("keydown", (event) => this.#key(event));
    this.el.addEventListener("focusin", (event) => this.#enter(this.cells.indexOf(event.target)));
  }

  #key(event) {
    const at = this.cells.indexOf(event.target), last = this.shown - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    this.cells[Math.max(0, Math.min(last, to))]?.focus();
  }

  #enter(at) {
    if (at < 0 || at === this.entry) return;
    this.cells[this.entry]?.setAttribute("tabindex", "-1");
    this.cells[this.entry = at].setAttribute("tabindex", "0");
  }

  show(functions, total) {
    const shown = functions.length;
    while (this.cells.length < shown) {
      const cell = h("a", { class: "g", tabindex: -1 });
      this.cells.push(cell);
      this.el.append(cell);
    }
    this.shown = shown;
    if (shown && !(this.entry < shown) && document.activeElement !== this.cells[this.entry]) this.#enter(0);
    this.cells.forEach((cell, i) => {
      const name = i < shown ? functions[i] : "";
      if (cell.fn !== name) {
        cell.fn = name;
        cell.hidden = !name;
        cell.style.background = name ? colour(name) : "";
        cell.title = name;
        cell.setAttribute("aria-label", short(name));
        cell.href = `#/jobs?function=${encodeURIComponent(name)}`;
      }
    });
    this.el.append(this.more);
    say(this.more, total > shown ? `+${count(total - shown)}` : total ? "" : "empty");
    toggle(this.el, "is-empty", !total);
    this.el.setAttribute("aria-label", `${this.label}: ${total} Gs`);
  }
}

// The box beside the pointer: what a bar or a mark of the task stream is.

import { colour, count, h, span as words } from "./dom.js";
import { isHost, placeFirst } from "./places.js";
import { WHAT } from "./tracks.js";

const WHY = { blocked: "its call blocked", hog: "it computed for long", native: "it computes in C without the GIL", known: "it is known to block" };

export class Tip {
  constructor() {
    this.el = h("div", { class: "ts-tip", hidden: true });
  }

  hide() {
    this.el.hidden = true;
  }

  /** Say what was hit, beside that point of a plot of this width; `clock` has the present and the wall's offset. */
  show(hit, { x, y }, width, clock) {
    this.el.hidden = false;
    const text = JSON.stringify([hit.id, hit.mark, hit.to]);
    if (this.text !== text) {
      this.text = text;
      this.#write(hit, clock);
    }
    const wide = this.el.offsetWidth;
    this.el.style.left = `${Math.max(0, Math.min(width - wide, x + 14 + wide > width ? x - wide - 14 : x + 14))}px`;
    this.el.style.top = `${y + 16}px`;
  }

  #write(hit, clock) {
    const square = h("i", { class: "g" });
    if (hit.name) square.style.background = colour(hit.name);
    const facts = hit.mark ? [["when", moment(hit.mark.at, clock)]] : factsOf(hit, clock);
    this.el.replaceChildren(
      h("b", {}, hit.name ? square : "", hit.mark ? hit.mark.text : hit.name),
      h("dl", { class: "facts" }, facts.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
      hit.opens ? h("span", { class: "dim" }, "click to open the job") : "");
  }
}

function factsOf(hit, clock) {
  if (isHost(hit.row.p)) return ofHost(hit, clock);
  const found = [];
  const took = words((hit.to - hit.at) / 1e6), p = hit.row.alone ? "in a worker of its own" : `on P${hit.row.p}`;
  const kinds = {
    [WHAT.ran]: [hit.runs ? "runs" : "ran", `${took} ${p}`], [WHAT.step]: ["one step", `${took} ${p}`],
    [WHAT.async]: [hit.runs ? "async, begun" : "async, in all", `${took}${hit.runs ? " ago" : ", with its waits"}`],
    [WHAT.beside]: ["beside P", `${took}${hit.why ? `: ${WHY[hit.why] ?? hit.why}` : ""}`],
  };
  if (hit.jobs > 1) {
    found.push([hit.what === WHAT.step ? "steps" : "jobs", `${count(hit.jobs)} within ${took} ${p}`]);
    if (hit.busy) found.push(["together", words(hit.busy / 1e6)]);
  } else found.push(kinds[hit.what]);
  found.push(["start", moment(hit.at, clock)]);
  if (hit.wait >= 0) found.push(["wait", words(hit.wait / 1e6)]);
  if (hit.bad) found.push(["ended", hit.bad]);
  if (hit.job) found.push([hit.opens ? "job" : "job, volatile", h("span", { class: "mono" }, hit.job)]);
  return found;
}

/** A function's part of a host's cores. */
function ofHost(hit, clock) {
  const share = Math.min(100, (100 * hit.busy) / (hit.to - hit.at));
  return [
    ["where", placeFirst(hit.row.p)], ["cores", `${share < 1 ? "< 1" : Math.round(share)} % of them for ${words((hit.to - hit.at) / 1e6)}`],
    ["ended", `${count(hit.jobs)} ${hit.jobs === 1 ? "job" : "jobs"}`], ["start", moment(hit.at, clock)],
  ];
}

function moment(t, { edge, wall }) {
  const date = new Date((t + wall) / 1000);
  const time = `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  return `${time}, ${words(Math.max(0, edge - t) / 1e6)} ago`;
}

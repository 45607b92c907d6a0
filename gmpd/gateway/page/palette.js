// The colours of the task stream's canvas: those of the page's style, and one for each function.

import { colour } from "./dom.js";

const NAMES = ["line", "text", "dim", "raised", "panel", "accent", "warm", "bad", "cool", "mono"];

export class Palette {
  constructor(context) {
    this.context = context;
  }

  /** Take the colours from the style, if they are not those of the last look: dark or light. */
  look() {
    const root = getComputedStyle(document.documentElement), pick = (name) => root.getPropertyValue(`--${name}`).trim();
    const key = pick("bg") + pick("fn-l");
    if (this.key === key) return;
    this.key = key;
    for (const name of NAMES) this[name] = pick(name);
    this.light = pick("fn-l");
    this.functions = new Map();
    this.hatch = this.context.createPattern(hatching(this.bad), "repeat");
  }

  /** The colour of a function. */
  of(name) {
    let found = this.functions.get(name);
    if (!found) this.functions.set(name, found = colour(name).replace("var(--fn-l)", this.light));
    return found;
  }
}

function hatching(shade) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const on = tile.getContext("2d");
  on.strokeStyle = shade;
  on.lineWidth = 1.6;
  on.globalAlpha = 0.5;
  on.beginPath();
  for (const x of [-4, 4]) {
    on.moveTo(x, 10);
    on.lineTo(x + 12, -2);
  }
  on.stroke();
  return tile;
}

// The picture of the task stream on its canvas: a row for each P with its bars, lanes and marks, and the
// axis below. It knows where each thing is, and so what is at a point.

import { short } from "./dom.js";
import { Palette } from "./palette.js";
import { isHost, placeFirst } from "./places.js";
import { WHAT } from "./tracks.js";

const AXIS = 22, MARK = 6;
/** Less wide than this, names are short. */
const NARROW = 560;
const DIMMED = 0.16;

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.palette = new Palette(this.context);
    this.width = this.left = 0;
    this.rows = [];
    this.scene = null; // what was drawn last
  }

  // -- where things are ---------------------------------------------------------------------------

  /** The share of the window that is left of a place; of the left edge 0, of the right one 1. */
  share(x) {
    return (x - this.left) / (this.width - this.left);
  }

  #x(t) {
    return this.left + (t - this.scene.from) * this.perUs;
  }

  #lane(row, lane) {
    return row.alone ? row.top + lane * (row.thin + 2) : lane === 0 ? row.top : row.top + row.tall + 3 + (lane - 1) * (row.thin + 2);
  }

  #laneAt(row, y) {
    if (row.alone) return Math.max(0, Math.min(row.lanes, Math.floor((y - row.top) / (row.thin + 2))));
    if (y <= row.top + row.tall + 1 || !row.lanes) return 0;
    return Math.max(1, Math.min(row.lanes, 1 + Math.floor((y - row.top - row.tall - 2) / (row.thin + 2))));
  }

  /** The bar, the run, or the mark there. */
  hit({ x, y }) {
    if (!this.scene || x < this.left) return null;
    const row = this.rows.find((each) => y >= each.top - 5 && y <= each.bottom + 3);
    if (!row) return null;
    const { tracks, from, to } = this.scene, at = from + this.share(x) * (to - from);
    const near = 3 * (to - from) / (this.width - this.left);
    const mark = tracks.mark(row, at, near, y <= row.top + row.tall + 4);
    return tracks.find(row, this.#laneAt(row, y), at, near, y) ?? (mark && { row, mark });
  }

  // -- the whole ----------------------------------------------------------------------------------

  /**
   * Draw `tracks` between two times; `edge` is the present, `only` the function that is not dimmed, and
   * `none` the text if there is no row. What is under `point` is outlined, and returned.
   */
  draw(scene) {
    const { tracks, from, to, point, none } = scene, c = this.context, narrow = this.width < NARROW;
    this.palette.look();
    this.rows = tracks.layout();
    this.left = this.rows.some((row) => isHost(row.p)) ? (narrow ? 68 : 132) : narrow ? 40 : 64;
    const height = Math.max(90, (this.rows.at(-1)?.bottom ?? 60) + AXIS + 4);
    this.#clear(height);
    if (!this.rows.length) return void this.#say(none, height);
    this.scene = scene;
    this.perUs = (this.width - this.left) / (to - from);
    this.bars = 0;
    this.#axis(height);
    c.save();
    c.beginPath();
    c.rect(this.left, 0, this.width - this.left, height);
    c.clip();
    for (const row of this.rows) this.#row(row);
    this.#moves();
    const hit = point && this.hit(point);
    if (hit && !hit.mark) this.#outline(hit);
    c.restore();
    for (const row of this.rows) this.#name(row, narrow);
    this.canvas.dataset.bars = this.bars;
    return hit;
  }

  #clear(height) {
    const scale = devicePixelRatio || 1;
    const w = Math.round(this.width * scale), tall = Math.round(height * scale);
    if (this.canvas.width !== w || this.canvas.height !== tall) {
      this.canvas.width = w;
      this.canvas.height = tall;
      this.canvas.style.height = `${height}px`;
    }
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.context.clearRect(0, 0, this.width, height);
  }

  #say(text, height) {
    this.context.fillStyle = this.palette.dim;
    this.context.font = "13px system-ui";
    this.context.fillText(text, this.left + 4, height / 2);
  }

  #axis(height) {
    const c = this.context, palette = this.palette, { from, to, edge } = this.scene;
    const room = Math.max(2, Math.floor((this.width - this.left) / 90));
    const raw = (to - from) / room, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step / 1e6) + 1e-9));
    c.font = `11px ${palette.mono}`;
    c.textAlign = "center";
    for (let n = Math.ceil((from - edge) / step); edge + n * step <= to + 1; n++) {
      const x = Math.round(this.#x(edge + n * step)) + 0.5;
      c.fillStyle = palette.line;
      c.fillRect(x - 0.5, 0, 1, height - AXIS + 4);
      c.fillStyle = palette.dim;
      const label = n === 0 ? "now" : `${(n * step / 1e6).toFixed(digits).replace("-", "−")} s`;
      const half = c.measureText(label).width / 2;
      c.fillText(label, Math.min(this.width - half, Math.max(this.left + half, x)), height - 6);
    }
    c.textAlign = "left";
  }

  #name(row, narrow) {
    const c = this.context, palette = this.palette;
    c.fillStyle = row.silent ? palette.bad : palette.text;
    c.font = "650 13px system-ui";
    const y = row.top + row.tall / 2;
    c.textBaseline = "middle";
    const told = !row.alone && !narrow && row.tall >= 14, room = this.left - 10 - (told && isHost(row.p) ? 42 : 0);
    const name = narrow && row.alone ? "iso" : row.alone ? "isolated" : isHost(row.p) ? this.#fitting(placeFirst(row.p).replace("Host ", ""), room) : `P${row.p}`;
    c.fillText(name, 0, y);
    if (told) {
      c.fillStyle = palette.dim;
      c.font = `11px ${palette.mono}`;
      c.fillText(row.track.busyText ?? "", isHost(row.p) ? this.left - 46 : 30, y);
    }
    c.textBaseline = "alphabetic";
  }

  /** The end of a name, which tells hosts apart, in as many pixels. */
  #fitting(name, room) {
    const c = this.context;
    c.font = "650 12px system-ui";
    if (c.measureText(name).width <= room) return name;
    let cut = name;
    while (cut.length > 1 && c.measureText(`…${cut}`).width > room) cut = cut.slice(1);
    return `…${cut}`;
  }

  // -- one row ------------------------------------------------------------------------------------

  #row(row) {
    const c = this.context, palette = this.palette, { from, to } = this.scene, edge = Math.min(to, this.scene.edge);
    if (!row.alone) {
      c.fillStyle = palette.raised;
      c.beginPath();
      c.roundRect(this.left, row.top, this.width - this.left, row.tall, 4);
      c.fill();
      c.fillStyle = palette.dim;
      c.globalAlpha = 0.5;
      for (const part of row.track.parts) {
        if (part.to < from || part.from > to) continue;
        for (let i = 0; i < part.idle.length; i += 2) this.#block(part.idle[i], part.idle[i + 1], row.top + row.tall / 2 - 0.75, 1.5);
      }
      c.globalAlpha = 1;
    }
    for (const part of row.track.parts) {
      if (part.to >= from && part.from <= to) this.#bars(row, part);
    }
    for (const each of row.track.running) this.#runs(row, each, Math.max(each.began, Math.min(edge, row.track.until)));
    if (row.silent && row.track.until < to) this.#silent(row, Math.max(from, row.track.until), edge);
  }

  #block(a, b, y, tall) {
    const x = this.#x(a);
    this.context.fillRect(x, y, Math.max(1, this.#x(b) - x), tall);
  }

  /** The bars of one part, in the order of their beginnings; of those below a pixel two are drawn in each. */
  #bars(row, part) {
    const c = this.context, { from, to, only, tracks: { names } } = this.scene;
    const last = new Int32Array(row.lanes + 1).fill(-1), was = new Int32Array(row.lanes + 1).fill(-1), again = new Uint16Array(row.lanes + 1);
    let colourNow = "", alphaNow = 1;
    const paint = (fill, alpha) => {
      if (colourNow !== fill) c.fillStyle = colourNow = fill;
      if (alphaNow !== alpha) c.globalAlpha = alphaNow = alpha;
    };
    for (let i = 0; i < part.n; i++) {
      const a = part.at[i], b = a + part.ran[i];
      if (b < from || a > to) continue;
      const lane = part.lane[i];
      if (lane < 0 || lane > row.lanes) continue;
      const x = Math.max(this.#x(a), this.left - 2), w = Math.min(this.#x(b), this.width + 2) - x;
      const pixel = Math.floor(x);
      if (w < 1 && pixel === last[lane] && (part.name[i] === was[lane] || again[lane]++ > 0)) continue;
      if (w < 1) {
        if (pixel !== last[lane]) again[lane] = 0;
        [last[lane], was[lane]] = [pixel, part.name[i]];
      }
      this.bars++;
      const name = names[part.name[i]], y = this.#lane(row, lane);
      const dimmed = only && only !== name ? DIMMED : 1;
      if (lane === 0 && !row.alone) {
        const top = y + row.tall * part.low[i], tall = Math.max(1, row.tall * (part.high[i] - part.low[i]));
        paint(this.palette.of(name), dimmed);
        c.fillRect(x, top, Math.max(1, w > 4 && !isHost(row.p) ? w - 0.75 : w), tall);
        if (w > 46 && tall > 11) this.#label(short(name), x, w, y + row.tall / 2, colourNow = "#0c1319");
      } else {
        paint(this.palette.of(name), dimmed * (part.what[i] === WHAT.async ? 0.38 : 0.9));
        c.fillRect(x, y, Math.max(1.5, w > 4 ? w - 0.75 : w), row.thin);
      }
      if (part.bad[i] && part.bad[i] !== "cancelled") {
        paint(this.palette.bad, 1);
        c.fillRect(x, y - (lane ? 0 : 3), Math.max(2, w), lane ? row.thin : 3);
      }
    }
    c.globalAlpha = 1;
  }

  #label(text, x, w, y, fill) {
    const c = this.context;
    c.fillStyle = fill;
    c.font = "600 11px system-ui";
    c.textBaseline = "middle";
    const a = Math.max(x, this.left), room = Math.min(x + w, this.width) - a - 10;
    if (room > 24) {
      c.save();
      c.beginPath();
      c.rect(a, y - 10, room + 6, 20);
      c.clip();
      c.fillText(text, a + 5, y + 0.5);
      c.restore();
    }
    c.textBaseline = "alphabetic";
  }

  /** A job that has not ended, until the last news. */
  #runs(row, each, until) {
    if (each.lane < 0 || each.lane > row.lanes) return;
    const c = this.context, y = this.#lane(row, each.lane), { only, tracks } = this.scene, name = tracks.names[each.name];
    const x = Math.max(this.left - 2, this.#x(each.began)), w = Math.max(2, this.#x(until) - x);
    c.globalAlpha = (only && only !== name ? DIMMED : 1) * (each.what === WHAT.async ? 0.38 : each.lane ? 0.9 : 1);
    c.fillStyle = this.palette.of(name);
    const tall = each.lane === 0 && !row.alone ? row.tall : row.thin;
    c.fillRect(x, y, w, tall);
    c.globalAlpha = 1;
    if (tall > 11 && w > 46) this.#label(short(name), x, w, y + tall / 2, "#0c1319");
    c.fillStyle = this.palette.text;
    c.fillRect(x + w - 1.5, y, 1.5, tall);
    this.bars++;
  }

  #silent(row, from, to) {
    const c = this.context, x = this.#x(from), w = this.#x(to) - x;
    if (w <= 0) return;
    c.fillStyle = this.palette.hatch;
    c.fillRect(x, row.top, w, row.tall);
    const text = row.track.silence;
    c.font = "600 11.5px system-ui";
    const wide = c.measureText(text).width;
    const at = Math.max(this.left + 4, Math.min(x + 8, this.width - wide - 8));
    c.fillStyle = this.palette.panel;
    c.globalAlpha = 0.85;
    c.fillRect(at - 4, row.top + row.tall / 2 - 9, wide + 8, 18);
    c.globalAlpha = 1;
    c.fillStyle = this.palette.bad;
    c.textBaseline = "middle";
    c.fillText(text, at, row.top + row.tall / 2);
    c.textBaseline = "alphabetic";
  }

  // -- across rows --------------------------------------------------------------------------------

  #moves() {
    const c = this.context, palette = this.palette, { tracks, from, to } = this.scene;
    const places = new Map(this.rows.map((row) => [row.p, row]));
    c.fillStyle = palette.warm;
    for (const row of this.rows) {
      let last = -1e9;
      for (const each of row.track.handoffs ?? []) {
        const x = this.#x(each.at);
        if (each.at < from || each.at > to || x - last < MARK + 3) continue;
        last = x;
        const y = row.top + row.tall + 2;
        c.beginPath();
        c.moveTo(x - MARK / 2, y - MARK + 1);
        c.lineTo(x + MARK / 2, y - MARK + 1);
        c.lineTo(x, y);
        c.fill();
      }
    }
    c.strokeStyle = c.fillStyle = palette.accent;
    for (const each of tracks.steals) {
      const a = places.get(each.victim), b = places.get(each.thief);
      if (!a || !b || a === b || each.at < from || each.at > to) continue;
      const x = this.#x(each.at), down = b.top > a.top;
      const y1 = down ? a.top + a.tall : a.top, y2 = down ? b.top : b.top + b.tall;
      c.lineWidth = Math.min(4, 1.3 + Math.log2(each.jobs) / 2);
      c.beginPath();
      c.moveTo(x, y1);
      c.lineTo(x, y2);
      c.stroke();
      c.beginPath();
      c.arc(x, y1, 2.5, 0, 7);
      c.moveTo(x, y2 + (down ? 2 : -2));
      c.lineTo(x - 4.5, y2 + (down ? -6 : 6));
      c.lineTo(x + 4.5, y2 + (down ? -6 : 6));
      c.fill();
    }
    for (const each of tracks.workers) {
      const row = places.get(each.p);
      if (!row || each.at < from || each.at > to) continue;
      c.fillStyle = each.died ? palette.bad : palette.cool;
      c.fillRect(this.#x(each.at) - 1, row.top - 3, 2.5, row.tall + 6);
    }
  }

  #outline(hit) {
    const c = this.context, y = this.#lane(hit.row, hit.lane), tall = hit.lane === 0 && !hit.row.alone ? hit.row.tall : hit.row.thin;
    const x = Math.max(this.left, this.#x(hit.at)), w = Math.max(2, Math.min(this.width, this.#x(hit.to)) - x);
    c.strokeStyle = this.palette.text;
    c.lineWidth = 1.5;
    c.strokeRect(x - 0.5, y - 0.5, w + 1, tall + 1);
  }
}

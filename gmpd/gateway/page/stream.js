// The task stream: what each P ran in the last 30 s, on one canvas. Nothing is asked while it is not
// in view. Times are microseconds of the clock that the daemon's processes share.

import { get } from "./api.js";
import { colour, count, h, say, short, span as words, toggle } from "./dom.js";
import { Tracks, WHAT } from "./tracks.js";

const BACK = 30e6, SPAN_MIN = 1000;
const PERIOD_MS = 500, FRAME_MS = 30;
/** How far the right edge is behind the daemon: news come twice a second. */
const DELAY = 0.65e6;
const AXIS = 22, MARK = 6;
const WHY = { blocked: "its call blocked", hog: "it computed for long", native: "it computes in C without the GIL", known: "it is known to block" };

export class TaskStream {
  constructor() {
    this.tracks = new Tracks();
    this.span = BACK;
    this.held = null; // the right edge while the view stands still; null: it is the present
    this.active = this.inView = this.frozen = this.shown = false;
    this.after = 0;
    this.offset = null; // daemon's clock less this tab's
    this.pointer = null;
    this.only = null;
    this.#build();
    new ResizeObserver(() => this.#resize()).observe(this.plot);
    new IntersectionObserver((seen) => {
      this.inView = seen.at(-1).isIntersecting;
      this.#look();
    }, { rootMargin: "120px" }).observe(this.el);
    document.addEventListener("visibilitychange", () => this.#look());
    setInterval(() => this.#summarize(), 1000);
  }

  /** From the frame: whether its view is shown, whether the page is paused, and the address. */
  set(shown, frozen, params) {
    if (frozen && !this.frozen && this.offset !== null) this.edgeThen = this.#edge();
    if (!frozen) this.edgeThen = undefined;
    this.shown = shown;
    this.frozen = frozen;
    const span = Number(params.span) * 1e6, ago = Number(params.ago) * 1e6;
    const wanted = span >= SPAN_MIN && span < BACK ? span : BACK;
    if (params.span !== this.told?.span || params.ago !== this.told?.ago) {
      this.span = wanted;
      this.pending = ago > 0 && wanted < BACK ? ago : null;
      this.held = null;
      this.told = { span: params.span, ago: params.ago };
    }
    this.#look();
    this.#draw();
  }

  // -- the elements -------------------------------------------------------------------------------

  #build() {
    const button = (label, title, act) => {
      const el = h("button", { type: "button", class: "quiet", title, "aria-label": title }, label);
      el.addEventListener("click", act);
      return el;
    };
    this.range = h("span", { class: "dim range" });
    this.note = h("span", { class: "ts-note", role: "status" });
    this.canvas = h("canvas", { class: "ts-canvas", tabindex: 0, role: "img", "aria-label": "Task stream" });
    this.tip = h("div", { class: "ts-tip", hidden: true });
    this.select = h("i", { class: "ts-select", hidden: true });
    this.plot = h("div", { class: "ts-plot" }, this.canvas, this.select, this.tip);
    this.legend = h("div", { class: "ts-legend" });
    this.marks = h("div", { class: "ts-marks dim" });
    this.counts = h("span", { class: "dim ts-counts" });
    this.fit = button("Last 30 s", "The last 30 seconds (0)", () => this.#zoomTo(BACK, null));
    this.el = h("section", { class: "panel task-stream", "aria-label": "Task stream" },
      h("header", { class: "ts-head" }, h("h2", {}, "Task stream"), this.range, this.note, h("span", { class: "grow" }), this.counts,
        h("span", { class: "ts-buttons" }, button("−", "Zoom out (-)", () => this.#zoom(1.6)), button("+", "Zoom in (+)", () => this.#zoom(1 / 1.6)), this.fit)),
      this.plot, h("footer", { class: "ts-foot" }, this.legend, this.marks));
    this.marks.append(
      h("span", {}, h("i", { class: "k on" }), "on P"), h("span", {}, h("i", { class: "k beside" }), "beside P"),
      h("span", {}, h("i", { class: "k waits" }), "async, waits"), h("span", {}, h("i", { class: "k idle" }), "P sleeps"),
      h("span", {}, h("i", { class: "k handoff" }), "hand-off"), h("span", {}, h("i", { class: "k steal" }), "steal"));
    this.context = this.canvas.getContext("2d");
    const on = (name, act, options) => this.canvas.addEventListener(name, act, options);
    on("wheel", (event) => this.#wheel(event), { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", () => this.#drop());
    on("pointerleave", () => this.#leave());
    on("dblclick", () => this.#zoomTo(BACK, null));
    on("keydown", (event) => this.#key(event));
  }

  #resize() {
    this.width = this.plot.clientWidth;
    this.#draw();
  }

  // -- news ---------------------------------------------------------------------------------------

  /** Ask while it is seen and not paused. */
  #look() {
    const wanted = this.shown && this.inView && !document.hidden;
    const active = wanted && (!this.frozen || this.offset === null); // a paused page has one look
    if (active && !this.active) this.#run(this.turn = Symbol("turn"));
    this.active = active;
    if (!active) this.turn = null;
    if (wanted) this.#frame();
  }

  async #run(turn) {
    while (this.turn === turn) {
      const began = performance.now();
      let pause = PERIOD_MS;
      try {
        const told = await get("/trace", { after: this.after });
        if (this.turn !== turn) return;
        this.#take(told);
        say(this.note, this.tracks.missing);
      } catch (error) {
        say(this.note, error.message);
        pause = 2000;
      }
      await new Promise((over) => setTimeout(over, Math.max(100, pause - (performance.now() - began))));
    }
  }

  #take(told) {
    this.after = told.next;
    if (told.reset) this.tracks.clear();
    for (const chunk of told.chunks) this.tracks.add(chunk);
    const last = told.chunks.at(-1);
    if (!last) return;
    const offset = last.until_us - performance.now() * 1000;
    // Of late news the clock is not: it follows at once forward, and slowly back.
    if (this.offset === null || told.reset || Math.abs(offset - this.offset) > 3e6) this.offset = offset;
    else this.offset = Math.max(offset, this.offset - 20000);
    this.wall = last.wall_ms * 1000 - last.until_us;
    if (this.frozen) {
      this.edgeThen ??= last.until_us;
      this.#look();
    }
    if (this.pending != null) {
      this.held = this.#edge() - this.pending;
      this.pending = null;
    }
    this.tracks.forget(this.#edge() - BACK - 1e6);
    this.canvas.dataset.looks = Number(this.canvas.dataset.looks ?? 0) + 1;
    this.dirty = true;
    this.#legend();
  }

  /** The present of the picture. */
  #edge() {
    return this.edgeThen ?? performance.now() * 1000 + (this.offset ?? 0) - DELAY;
  }

  /** From and to. */
  #window() {
    const edge = this.#edge();
    if (this.held !== null) this.held = Math.min(edge, Math.max(this.held, edge - BACK + this.span));
    const to = this.held ?? edge;
    return [to - this.span, to];
  }

  #frame() {
    if (this.framed) return;
    this.framed = true;
    const step = (at) => {
      if (!this.shown || !this.inView || document.hidden) return void (this.framed = false);
      const moves = this.active && this.held === null && this.offset !== null;
      if ((moves || this.dirty) && at - (this.drawnAt ?? 0) >= FRAME_MS) {
        this.drawnAt = at;
        this.#draw();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // -- drawing ------------------------------------------------------------------------------------

  #colours() {
    const root = getComputedStyle(document.documentElement);
    const key = root.getPropertyValue("--bg") + root.getPropertyValue("--fn-l");
    if (this.shade?.key === key) return this.shade;
    const pick = (name) => root.getPropertyValue(name).trim();
    this.shade = {
      key, light: pick("--fn-l"), fns: new Map(), mono: pick("--mono"),
      ...Object.fromEntries(["line", "text", "dim", "raised", "panel", "accent", "warm", "bad", "cool"].map((name) => [name, pick(`--${name}`)])),
    };
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const on = tile.getContext("2d");
    on.strokeStyle = this.shade.bad;
    on.lineWidth = 1.6;
    on.globalAlpha = 0.5;
    on.beginPath();
    for (const x of [-4, 4]) {
      on.moveTo(x, 10);
      on.lineTo(x + 12, -2);
    }
    on.stroke();
    this.shade.hatch = this.context.createPattern(tile, "repeat");
    return this.shade;
  }

  #fill(name) {
    let found = this.shade.fns.get(name);
    if (!found) this.shade.fns.set(name, found = colour(name).replace("var(--fn-l)", this.shade.light));
    return found;
  }

  #draw() {
    if (!this.width) return;
    this.dirty = false;
    const c = this.context, shade = this.#colours(), narrow = this.width < 560;
    this.left = narrow ? 40 : 64;
    const rows = this.rows = this.tracks.layout();
    const height = Math.max(90, (rows.at(-1)?.bottom ?? 60) + AXIS + 4);
    const scale = devicePixelRatio || 1;
    const w = Math.round(this.width * scale), tall = Math.round(height * scale);
    if (this.canvas.width !== w || this.canvas.height !== tall) {
      this.canvas.width = w;
      this.canvas.height = tall;
      this.canvas.style.height = `${height}px`;
    }
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, this.width, height);
    if (!rows.length) return this.#say(this.offset === null ? "asking the workers …" : "no P", height);
    const [from, to] = this.view = this.#window();
    const k = (this.width - this.left) / (to - from);
    this.x = (t) => this.left + (t - from) * k;
    this.shownBars = 0;
    this.#axis(from, to, height);
    c.save();
    c.beginPath();
    c.rect(this.left, 0, this.width - this.left, height);
    c.clip();
    for (const row of rows) this.#row(row, from, to);
    this.#moves(rows, from, to);
    if (this.pointer && !this.dragging) this.#outline();
    c.restore();
    for (const row of rows) this.#name(row, narrow);
    this.canvas.dataset.bars = this.shownBars;
    this.#range();
  }

  #say(text, height) {
    this.context.fillStyle = this.shade.dim;
    this.context.font = "13px system-ui";
    this.context.fillText(text, this.left + 4, height / 2);
  }

  #axis(from, to, height) {
    const c = this.context, shade = this.shade, edge = this.#edge();
    const room = Math.max(2, Math.floor((this.width - this.left) / 90));
    const raw = (to - from) / room, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step / 1e6) + 1e-9));
    c.font = `11px ${shade.mono}`;
    c.textAlign = "center";
    for (let n = Math.ceil((from - edge) / step); edge + n * step <= to + 1; n++) {
      const x = Math.round(this.x(edge + n * step)) + 0.5;
      c.fillStyle = shade.line;
      c.fillRect(x - 0.5, 0, 1, height - AXIS + 4);
      c.fillStyle = shade.dim;
      const label = n === 0 ? "now" : `${(n * step / 1e6).toFixed(digits).replace("-", "−")} s`;
      const half = c.measureText(label).width / 2;
      c.fillText(label, Math.min(this.width - half, Math.max(this.left + half, x)), height - 6);
    }
    c.textAlign = "left";
  }

  #name(row, narrow) {
    const c = this.context, shade = this.shade;
    c.fillStyle = row.silent ? shade.bad : shade.text;
    c.font = "650 13px system-ui";
    const y = row.top + row.tall / 2;
    c.textBaseline = "middle";
    c.fillText(narrow && row.alone ? "iso" : row.alone ? "isolated" : `P${row.p}`, 0, y);
    if (!row.alone && !narrow && row.tall >= 14) {
      c.fillStyle = shade.dim;
      c.font = `11px ${shade.mono}`;
      c.fillText(row.track.busyText ?? "", 30, y);
    }
    c.textBaseline = "alphabetic";
  }

  #row(row, from, to) {
    const c = this.context, shade = this.shade, edge = Math.min(to, this.#edge());
    if (!row.alone) {
      c.fillStyle = shade.raised;
      c.beginPath();
      c.roundRect(this.left, row.top, this.width - this.left, row.tall, 4);
      c.fill();
      c.fillStyle = shade.dim;
      c.globalAlpha = 0.5;
      for (const part of row.track.parts) {
        if (part.to < from || part.from > to) continue;
        for (let i = 0; i < part.idle.length; i += 2) this.#block(part.idle[i], part.idle[i + 1], row.top + row.tall / 2 - 0.75, 1.5);
      }
      c.globalAlpha = 1;
    }
    for (const part of row.track.parts) {
      if (part.to >= from && part.from <= to) this.#bars(row, part, from, to);
    }
    for (const each of row.track.running) this.#runs(row, each, Math.max(each.began, Math.min(edge, row.track.until)));
    if (row.silent && row.track.until < to) this.#silent(row, Math.max(from, row.track.until), edge);
  }

  #block(a, b, y, tall) {
    const x = this.x(a);
    this.context.fillRect(x, y, Math.max(1, this.x(b) - x), tall);
  }

  /** The bars of one part, in the order of their beginnings; of those below a pixel two are drawn in each. */
  #bars(row, part, from, to) {
    const c = this.context, names = this.tracks.names;
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
      const x = Math.max(this.x(a), this.left - 2), w = Math.min(this.x(b), this.width + 2) - x;
      const pixel = Math.floor(x);
      if (w < 1 && pixel === last[lane] && (part.name[i] === was[lane] || again[lane]++ > 0)) continue;
      if (w < 1) {
        if (pixel !== last[lane]) again[lane] = 0;
        [last[lane], was[lane]] = [pixel, part.name[i]];
      }
      this.shownBars++;
      const name = names[part.name[i]], y = this.#lane(row, lane);
      const dimmed = this.only && this.only !== name ? 0.16 : 1;
      if (lane === 0 && !row.alone) {
        const top = y + row.tall * part.low[i], tall = Math.max(1, row.tall * (part.high[i] - part.low[i]));
        paint(this.#fill(name), dimmed);
        c.fillRect(x, top, Math.max(1, w > 4 ? w - 0.75 : w), tall);
        if (w > 46 && tall > 11) this.#label(short(name), x, w, y + row.tall / 2, colourNow = "#0c1319");
      } else {
        paint(this.#fill(name), dimmed * (part.what[i] === WHAT.async ? 0.38 : 0.9));
        c.fillRect(x, y, Math.max(1.5, w > 4 ? w - 0.75 : w), row.thin);
      }
      if (part.bad[i] && part.bad[i] !== "cancelled") {
        paint(this.shade.bad, 1);
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

  #lane(row, lane) {
    return row.alone ? row.top + lane * (row.thin + 2) : lane === 0 ? row.top : row.top + row.tall + 3 + (lane - 1) * (row.thin + 2);
  }

  /** A job that has not ended, until the last news. */
  #runs(row, each, until) {
    if (each.lane < 0 || each.lane > row.lanes) return;
    const c = this.context, y = this.#lane(row, each.lane), name = this.tracks.names[each.name];
    const x = Math.max(this.left - 2, this.x(each.began)), w = Math.max(2, this.x(until) - x);
    c.globalAlpha = (this.only && this.only !== name ? 0.16 : 1) * (each.what === WHAT.async ? 0.38 : each.lane ? 0.9 : 1);
    c.fillStyle = this.#fill(name);
    const tall = each.lane === 0 && !row.alone ? row.tall : row.thin;
    c.fillRect(x, y, w, tall);
    c.globalAlpha = 1;
    if (tall > 11 && w > 46) this.#label(short(name), x, w, y + tall / 2, "#0c1319");
    c.fillStyle = this.shade.text;
    c.fillRect(x + w - 1.5, y, 1.5, tall);
    this.shownBars++;
  }

  #silent(row, from, to) {
    const c = this.context, x = this.x(from), w = this.x(to) - x;
    if (w <= 0) return;
    c.fillStyle = this.shade.hatch;
    c.fillRect(x, row.top, w, row.tall);
    const text = row.track.silence;
    c.font = "600 11.5px system-ui";
    const wide = c.measureText(text).width;
    const at = Math.max(this.left + 4, Math.min(x + 8, this.width - wide - 8));
    c.fillStyle = this.shade.panel;
    c.globalAlpha = 0.85;
    c.fillRect(at - 4, row.top + row.tall / 2 - 9, wide + 8, 18);
    c.globalAlpha = 1;
    c.fillStyle = this.shade.bad;
    c.textBaseline = "middle";
    c.fillText(text, at, row.top + row.tall / 2);
    c.textBaseline = "alphabetic";
  }

  #moves(rows, from, to) {
    const c = this.context, shade = this.shade, places = new Map(rows.map((row) => [row.p, row]));
    c.fillStyle = shade.warm;
    for (const row of rows) {
      let last = -1e9;
      for (const each of row.track.handoffs ?? []) {
        const x = this.x(each.at);
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
    c.strokeStyle = c.fillStyle = shade.accent;
    for (const each of this.tracks.steals) {
      const a = places.get(each.victim), b = places.get(each.thief);
      if (!a || !b || a === b || each.at < from || each.at > to) continue;
      const x = this.x(each.at), down = b.top > a.top;
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
    for (const each of this.tracks.workers) {
      const row = places.get(each.p);
      if (!row || each.at < from || each.at > to) continue;
      c.fillStyle = each.died ? shade.bad : shade.cool;
      c.fillRect(this.x(each.at) - 1, row.top - 3, 2.5, row.tall + 6);
    }
  }

  // -- what is under the pointer -------------------------------------------------------------------

  /** The bar, the run, or the mark there. */
  #hit({ x, y }) {
    if (!this.x || x < this.left) return null;
    const row = this.rows?.find((each) => y >= each.top - 5 && y <= each.bottom + 3);
    if (!row) return null;
    const [from, to] = this.view, at = from + (x - this.left) / (this.width - this.left) * (to - from);
    const near = 3 * (to - from) / (this.width - this.left);
    const mark = this.tracks.mark(row, at, near, y <= row.top + row.tall + 4);
    const lane = this.#laneAt(row, y);
    return this.tracks.find(row, lane, at, near, y, mark) ?? (mark && { row, mark });
  }

  #laneAt(row, y) {
    if (row.alone) return Math.max(0, Math.min(row.lanes, Math.floor((y - row.top) / (row.thin + 2))));
    if (y <= row.top + row.tall + 1 || !row.lanes) return 0;
    return Math.max(1, Math.min(row.lanes, 1 + Math.floor((y - row.top - row.tall - 2) / (row.thin + 2))));
  }

  #outline() {
    const hit = this.hit = this.#hit(this.pointer);
    this.#tell(hit);
    if (!hit || hit.mark) return;
    const c = this.context, y = this.#lane(hit.row, hit.lane), tall = hit.lane === 0 && !hit.row.alone ? hit.row.tall : hit.row.thin;
    const x = Math.max(this.left, this.x(hit.at)), w = Math.max(2, Math.min(this.width, this.x(hit.to)) - x);
    c.strokeStyle = this.shade.text;
    c.lineWidth = 1.5;
    c.strokeRect(x - 0.5, y - 0.5, w + 1, tall + 1);
  }

  #tell(hit) {
    this.canvas.style.cursor = hit?.job && hit.opens ? "pointer" : "crosshair";
    this.tip.hidden = !hit;
    if (!hit) return;
    const text = JSON.stringify([hit.id, hit.mark, hit.to]);
    if (this.tipText !== text) {
      this.tipText = text;
      const square = h("i", { class: "g" });
      if (hit.name) square.style.background = colour(hit.name);
      const facts = hit.mark ? [["when", this.#moment(hit.mark.at)]] : this.#facts(hit);
      this.tip.replaceChildren(
        h("b", {}, hit.name ? square : "", hit.mark ? hit.mark.text : hit.name),
        h("dl", { class: "facts" }, facts.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
        hit.opens ? h("span", { class: "dim" }, "click to open the job") : "");
    }
    const { x, y } = this.pointer, wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(this.width - wide, x + 14 + wide > this.width ? x - wide - 14 : x + 14))}px`;
    this.tip.style.top = `${y + 16}px`;
  }

  #facts(hit) {
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
    found.push(["start", this.#moment(hit.at)]);
    if (hit.wait >= 0) found.push(["wait", words(hit.wait / 1e6)]);
    if (hit.bad) found.push(["ended", hit.bad]);
    if (hit.job) found.push([hit.opens ? "job" : "job, volatile", h("span", { class: "mono" }, hit.job)]);
    return found;
  }

  #moment(t) {
    const wall = new Date((t + (this.wall ?? 0)) / 1000);
    const clock = `${wall.toTimeString().slice(0, 8)}.${String(wall.getMilliseconds()).padStart(3, "0")}`;
    return `${clock}, ${words(Math.max(0, this.#edge() - t) / 1e6)} ago`;
  }

  // -- zoom ---------------------------------------------------------------------------------------

  #zoomTo(span, end) {
    const edge = this.#edge();
    this.span = Math.min(BACK, Math.max(SPAN_MIN, span));
    this.held = this.span >= BACK || end === null || end >= edge - 1000 ? null : Math.max(end, edge - BACK + this.span);
    this.pending = null;
    this.#remember();
    this.#draw();
  }

  /** By a factor, around a time (the right edge, if the view follows the present). */
  #zoom(factor, around) {
    const [from, to] = this.#window(), span = Math.min(BACK, Math.max(SPAN_MIN, this.span * factor));
    const fixed = around ?? (this.held === null ? to : (from + to) / 2);
    const end = fixed + (to - fixed) * (span / this.span);
    this.#zoomTo(span, end);
  }

  #pan(share) {
    const [, to] = this.#window();
    if (this.span < BACK) this.#zoomTo(this.span, to + share * this.span);
  }

  #timeAt(x) {
    const [from, to] = this.#window();
    return from + (x - this.left) / (this.width - this.left) * (to - from);
  }

  #wheel(event) {
    const across = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const mine = event.ctrlKey || event.metaKey || across || document.activeElement === this.canvas;
    if (!mine || (across && this.span >= BACK)) return; // the page scrolls
    event.preventDefault();
    if (across) this.#pan(event.deltaX / 800);
    else this.#zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) / 300), this.#timeAt(event.offsetX));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      "+": () => this.#zoom(1 / 1.6), "=": () => this.#zoom(1 / 1.6), "-": () => this.#zoom(1.6),
      ArrowLeft: () => this.#pan(-0.2), ArrowRight: () => this.#pan(0.2), 0: () => this.#zoomTo(BACK, null),
    }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  }

  #down(event) {
    this.touches ??= new Map();
    this.touches.set(event.pointerId, event.offsetX);
    this.canvas.setPointerCapture(event.pointerId);
    this.dragging = { x: event.offsetX, pans: event.shiftKey || event.pointerType === "touch", far: false };
    if (event.pointerType === "touch") this.pointer = { x: event.offsetX, y: event.offsetY };
  }

  #move(event) {
    const { offsetX: x, offsetY: y } = event, drag = this.dragging;
    if (this.touches?.size > 1 && this.touches.has(event.pointerId)) return this.#pinch(event.pointerId, x);
    this.pointer = { x, y };
    if (drag && Math.abs(x - drag.x) > 4) drag.far = true;
    if (drag?.far && drag.pans) {
      this.#pan((drag.x - x) / (this.width - this.left));
      drag.x = x;
    } else if (drag?.far) {
      this.tip.hidden = true;
      this.select.hidden = false;
      this.select.style.left = `${Math.max(this.left, Math.min(x, drag.x))}px`;
      this.select.style.width = `${Math.abs(Math.max(this.left, x) - drag.x)}px`;
    }
    this.dirty = true;
  }

  #pinch(id, x) {
    const other = [...this.touches].find(([each]) => each !== id)[1], before = this.touches.get(id);
    this.touches.set(id, x);
    this.dragging = null;
    const factor = Math.abs(before - other) / Math.max(8, Math.abs(x - other));
    if (Number.isFinite(factor) && factor > 0) this.#zoom(Math.min(2, Math.max(0.5, factor)), this.#timeAt((x + other) / 2));
  }

  #up(event) {
    const drag = this.dragging, x = event.offsetX;
    this.touches?.delete(event.pointerId);
    this.#drop();
    if (!drag) return;
    if (drag.far && !drag.pans) {
      const [a, b] = [drag.x, Math.max(this.left, x)].sort((m, n) => m - n).map((each) => this.#timeAt(each));
      if (b > a) this.#zoomTo(b - a, b);
    } else if (!drag.far) {
      const hit = this.#hit({ x, y: event.offsetY });
      if (hit?.opens) location.hash = `#/jobs/${hit.job}`;
    }
    this.dirty = true;
  }

  #drop() {
    this.dragging = null;
    this.select.hidden = true;
  }

  #leave() {
    this.pointer = this.hit = null;
    this.tip.hidden = true;
    this.dirty = true;
  }

  /** Write the window into the address, once it rests. */
  #remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      const [path, text] = location.hash.slice(1).split("?"), query = new URLSearchParams(text ?? "");
      if ((path || "/") !== "/") return;
      query.delete("span");
      query.delete("ago");
      if (this.span < BACK) query.set("span", String(Number((this.span / 1e6).toPrecision(4))));
      if (this.held !== null) query.set("ago", ((this.#edge() - this.held) / 1e6).toFixed(3));
      this.told = { span: query.get("span") ?? undefined, ago: query.get("ago") ?? undefined };
      history.replaceState(null, "", `#${path || "/"}${query.size ? `?${query}` : ""}`);
    }, 150);
  }

  // -- words --------------------------------------------------------------------------------------

  #range() {
    const ago = this.held === null ? 0 : this.#edge() - this.held;
    const text = this.span >= BACK ? "last 30 s" : ago > 5e4 ? `${words(this.span / 1e6)}, ${words(ago / 1e6)} ago` : `last ${words(this.span / 1e6)}`;
    say(this.range, text);
    toggle(this.fit, "on", this.span < BACK);
  }

  /** The functions that took the most time in view. */
  #legend() {
    const found = this.tracks.busiest(...this.#window()).slice(0, 8);
    const text = JSON.stringify(found);
    if (this.legendText === text) return;
    this.legendText = text;
    this.legend.replaceChildren(...found.map((name) => {
      const square = h("i", { class: "g" });
      square.style.background = colour(name);
      const el = h("a", { class: "ts-fn", href: `#/jobs?function=${encodeURIComponent(name)}`, title: name }, square, short(name));
      el.addEventListener("pointerenter", () => this.#solo(name));
      el.addEventListener("pointerleave", () => this.#solo(null));
      return el;
    }));
  }

  #solo(name) {
    this.only = name;
    this.dirty = true;
    if (!this.framed) this.#draw();
  }

  /** The same in words, for who cannot see it. */
  #summarize() {
    if (!this.shown || this.offset === null || !this.view) return;
    const [from, to] = this.#window();
    const { lines, jobs, steals, handoffs } = this.tracks.summary(from, to);
    say(this.counts, [`${this.span < BACK ? "about " : ""}${count(jobs)} jobs`, steals && `${count(steals)} steals`, handoffs && `${count(handoffs)} hand-offs`].filter(Boolean).join(" · "));
    this.canvas.setAttribute("aria-label", `Task stream, ${this.range.textContent}. ${lines.join(". ")}. ${steals} steals, ${handoffs} hand-offs.`);
    this.#legend();
    this.dirty = true;
  }
}

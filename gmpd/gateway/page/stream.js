// The task stream: what each P ran in the last 30 s, on one canvas. Nothing is asked while it is not
// in view. Times are microseconds of the clock that the daemon's processes share.

import { get } from "./api.js";
import { colour, count, h, say, short, span as words, toggle } from "./dom.js";
import { Painter } from "./painter.js";
import { Pointer } from "./pointer.js";
import { Tracks } from "./tracks.js";

const BACK = 30e6, SPAN_MIN = 1000, STEP = 1.6;
const PERIOD_MS = 500, FRAME_MS = 30;
/** How far the right edge is behind the daemon: news come twice a second. */
const DELAY = 0.65e6;

export class TaskStream {
  constructor() {
    this.tracks = new Tracks();
    this.span = BACK;
    this.held = null; // the right edge while the view stands still; null: it is the present
    this.active = this.inView = this.frozen = this.shown = false;
    this.after = 0;
    this.offset = null; // daemon's clock less this tab's
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
    this.painter = new Painter(this.canvas);
    this.pointer = new Pointer(this.canvas, this, this.painter);
    this.plot = h("div", { class: "ts-plot" }, this.canvas, this.pointer.selection, this.pointer.tip.el);
    this.legend = h("div", { class: "ts-legend" });
    this.marks = h("div", { class: "ts-marks dim" });
    this.counts = h("span", { class: "dim ts-counts" });
    this.fit = button("Last 30 s", "The last 30 seconds (0)", () => this.showAll());
    this.el = h("section", { class: "panel task-stream", "aria-label": "Task stream" },
      h("header", { class: "ts-head" }, h("h2", {}, "Task stream"), this.range, this.note, h("span", { class: "grow" }), this.counts,
        h("span", { class: "ts-buttons" }, button("−", "Zoom out (-)", () => this.zoomOut()), button("+", "Zoom in (+)", () => this.zoomIn()), this.fit)),
      this.plot, h("footer", { class: "ts-foot" }, this.legend, this.marks));
    this.marks.append(
      h("span", {}, h("i", { class: "k on" }), "on P"), h("span", {}, h("i", { class: "k beside" }), "beside P"),
      h("span", {}, h("i", { class: "k waits" }), "async, waits"), h("span", {}, h("i", { class: "k idle" }), "P sleeps"),
      h("span", {}, h("i", { class: "k handoff" }), "hand-off"), h("span", {}, h("i", { class: "k steal" }), "steal"));
  }

  #resize() {
    this.painter.width = this.plot.clientWidth;
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
  #window(edge = this.#edge()) {
    if (this.held !== null) this.held = Math.min(edge, Math.max(this.held, edge - BACK + this.span));
    const to = this.held ?? edge;
    return [to - this.span, to];
  }

  // -- drawing ------------------------------------------------------------------------------------

  /** With the next frame. */
  redraw() {
    this.dirty = true;
  }

  #draw() {
    if (!this.painter.width) return;
    this.dirty = false;
    const edge = this.#edge(), [from, to] = this.#window(edge), point = this.pointer.point;
    const none = this.offset === null ? "asking the workers …" : "no P";
    const hit = this.painter.draw({ tracks: this.tracks, from, to, edge, only: this.only, point, none });
    if (!this.painter.rows.length) return;
    if (point) this.pointer.tell(hit, { edge, wall: this.wall ?? 0 });
    this.#range();
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

  // -- the window: zoom and pan -------------------------------------------------------------------

  /** Whether all that is kept is in the window. */
  get showsAll() {
    return this.span >= BACK;
  }

  showAll() {
    this.zoomTo(BACK, null);
  }

  /** To a span with this end; null: the present. */
  zoomTo(span, end) {
    const edge = this.#edge();
    this.span = Math.min(BACK, Math.max(SPAN_MIN, span));
    this.held = this.showsAll || end === null || end >= edge - 1000 ? null : Math.max(end, edge - BACK + this.span);
    this.pending = null;
    this.#remember();
    this.#draw();
  }

  zoomIn() {
    this.zoom(1 / STEP);
  }

  zoomOut() {
    this.zoom(STEP);
  }

  /** By a factor, around a time (the right edge, if the view follows the present). */
  zoom(factor, around) {
    const [from, to] = this.#window(), span = Math.min(BACK, Math.max(SPAN_MIN, this.span * factor));
    const fixed = around ?? (this.held === null ? to : (from + to) / 2);
    const end = fixed + (to - fixed) * (span / this.span);
    this.zoomTo(span, end);
  }

  /** By a share of the span. */
  pan(share) {
    const [, to] = this.#window();
    if (!this.showsAll) this.zoomTo(this.span, to + share * this.span);
  }

  timeAt(x) {
    const [from, to] = this.#window();
    return from + this.painter.share(x) * (to - from);
  }

  /** Write the window into the address, once it rests. */
  #remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      const [path, text] = location.hash.slice(1).split("?"), query = new URLSearchParams(text ?? "");
      if ((path || "/") !== "/") return;
      query.delete("span");
      query.delete("ago");
      if (!this.showsAll) query.set("span", String(Number((this.span / 1e6).toPrecision(4))));
      if (this.held !== null) query.set("ago", ((this.#edge() - this.held) / 1e6).toFixed(3));
      this.told = { span: query.get("span") ?? undefined, ago: query.get("ago") ?? undefined };
      history.replaceState(null, "", `#${path || "/"}${query.size ? `?${query}` : ""}`);
    }, 150);
  }

  // -- words --------------------------------------------------------------------------------------

  #range() {
    const ago = this.held === null ? 0 : this.#edge() - this.held;
    const text = this.showsAll ? "last 30 s" : ago > 5e4 ? `${words(this.span / 1e6)}, ${words(ago / 1e6)} ago` : `last ${words(this.span / 1e6)}`;
    say(this.range, text);
    toggle(this.fit, "on", !this.showsAll);
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
    this.redraw();
    if (!this.framed) this.#draw();
  }

  /** The same in words, for who cannot see it. */
  #summarize() {
    if (!this.shown || this.offset === null || !this.painter.scene) return;
    const [from, to] = this.#window();
    const { lines, jobs, steals, handoffs } = this.tracks.summary(from, to);
    say(this.counts, [`${this.showsAll ? "" : "about "}${count(jobs)} jobs`, steals && `${count(steals)} steals`, handoffs && `${count(handoffs)} hand-offs`].filter(Boolean).join(" · "));
    this.canvas.setAttribute("aria-label", `Task stream, ${this.range.textContent}. ${lines.join(". ")}. ${steals} steals, ${handoffs} hand-offs.`);
    this.#legend();
    this.dirty = true;
  }
}

// Mouse, fingers and keys on the task stream: zoom, pan, choose a window, and point at a bar.

import { h } from "./dom.js";
import { Tip } from "./tip.js";

/** A drag begins after so many pixels; before, it is a click. */
const FAR = 4;
const PAN = 0.2;

export class Pointer {
  /** Change the window of `stream` by events of this canvas; `painter` knows what is where on it. */
  constructor(canvas, stream, painter) {
    this.canvas = canvas;
    this.stream = stream;
    this.painter = painter;
    this.at = null;
    this.drag = null;
    this.touches = new Map();
    this.tip = new Tip();
    this.selection = h("i", { class: "ts-select", hidden: true });
    const on = (name, act, options) => canvas.addEventListener(name, act, options);
    on("wheel", (event) => this.#wheel(event), { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#cancel(event));
    on("pointerleave", () => this.#leave());
    on("dblclick", () => stream.showAll());
    on("keydown", (event) => this.#key(event));
  }

  /** The point that is asked about; none during a drag. */
  get point() {
    return this.drag ? null : this.at;
  }

  /** What is drawn under the pointer. */
  tell(hit, clock) {
    this.canvas.style.cursor = hit?.job && hit.opens ? "pointer" : "crosshair";
    if (hit) this.tip.show(hit, this.at, this.painter.width, clock);
    else this.tip.hide();
  }

  // -- wheel and keys -----------------------------------------------------------------------------

  #wheel(event) {
    const across = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const mine = event.ctrlKey || event.metaKey || across || document.activeElement === this.canvas;
    if (!mine || (across && this.stream.showsAll)) return; // the page scrolls
    event.preventDefault();
    if (across) this.stream.pan(event.deltaX / 800);
    else this.stream.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) / 300), this.stream.timeAt(event.offsetX));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const stream = this.stream;
    const act = {
      "+": () => stream.zoomIn(), "=": () => stream.zoomIn(), "-": () => stream.zoomOut(),
      ArrowLeft: () => stream.pan(-PAN), ArrowRight: () => stream.pan(PAN), 0: () => stream.showAll(),
    }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  }

  // -- mouse and fingers --------------------------------------------------------------------------

  #down(event) {
    this.touches.set(event.pointerId, event.offsetX);
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, pans: event.shiftKey || event.pointerType === "touch", far: false };
    if (event.pointerType === "touch") this.at = { x: event.offsetX, y: event.offsetY };
  }

  #move(event) {
    const { offsetX: x, offsetY: y } = event, drag = this.drag;
    if (this.touches.size > 1 && this.touches.has(event.pointerId)) return this.#pinch(event.pointerId, x);
    this.at = { x, y };
    if (drag && Math.abs(x - drag.x) > FAR) drag.far = true;
    if (drag?.far && drag.pans) {
      this.stream.pan(this.painter.share(drag.x) - this.painter.share(x));
      drag.x = x;
    } else if (drag?.far) this.#select(drag.x, x);
    this.stream.redraw();
  }

  #select(from, to) {
    const left = this.painter.left;
    this.tip.hide();
    this.selection.hidden = false;
    this.selection.style.left = `${Math.max(left, Math.min(to, from))}px`;
    this.selection.style.width = `${Math.abs(Math.max(left, to) - from)}px`;
  }

  #pinch(id, x) {
    const other = [...this.touches].find(([each]) => each !== id)[1], before = this.touches.get(id);
    this.touches.set(id, x);
    this.drag = null;
    const factor = Math.abs(before - other) / Math.max(8, Math.abs(x - other));
    if (Number.isFinite(factor) && factor > 0) this.stream.zoom(Math.min(2, Math.max(0.5, factor)), this.stream.timeAt((x + other) / 2));
  }

  #up(event) {
    const drag = this.drag, x = event.offsetX;
    this.touches.delete(event.pointerId);
    this.#drop();
    if (!drag) return;
    if (drag.far && !drag.pans) {
      const [a, b] = [drag.x, Math.max(this.painter.left, x)].sort((m, n) => m - n).map((each) => this.stream.timeAt(each));
      if (b > a) this.stream.zoomTo(b - a, b);
    } else if (!drag.far) {
      const hit = this.painter.hit({ x, y: event.offsetY });
      if (hit?.opens) location.hash = `#/jobs/${hit.job}`;
    }
    this.stream.redraw();
  }

  /** The browser took the finger: it scrolls. */
  #cancel(event) {
    this.touches.delete(event.pointerId);
    this.#drop();
  }

  #drop() {
    this.drag = null;
    this.selection.hidden = true;
  }

  #leave() {
    this.at = null;
    this.tip.hide();
    this.stream.redraw();
  }
}

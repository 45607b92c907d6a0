// The picture of P, M and G: the global queue, a card for each P and each host, isolated workers, and
// what moves.

import { bytes, colour, copyButton, count, h, morph, rate, say, short, span, spark, svg, toggle } from "./dom.js";
import { Hosts } from "./hosts.js";
import { failed, finished, moves } from "./past.js";
import { Squares } from "./squares.js";

const STATES = {
  idle: "idle", running: "running", searching: "searching", starting: "starting", deaf: "deaf",
  draining: "draining", dead: "no worker",
};
const SOURCES = ["runnext", "local", "global", "steal", "poller", "timer"];
const MS_SHOWN = 20;
const EVENTS_SHOWN = 10;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

class PCard {
  constructor(p) {
    this.p = p;
    this.state = h("span", { class: "state" });
    this.where = h("span", { class: "dim mono" });
    this.ring = svg("circle", { cx: 22, cy: 22, r: 18, class: "ring-value", pathLength: 100 });
    this.busy = spark(120, 26);
    this.fn = h("span", { class: "fn" });
    this.since = h("span", { class: "since mono" });
    this.now = h("a", { class: "now", href: `#/gs?p=${p}&state=running` }, h("span", { class: "tag" }, "G"), this.fn, this.since);
    this.queue = new Squares(`run queue of P${p}`);
    this.queued = h("b");
    this.ms = h("div", { class: "ms", role: "img" });
    this.msText = h("span", { class: "dim" });
    this.parked = h("a", { class: "dim gs-text", href: `#/gs?p=${p}` });
    this.found = h("span", { class: "dim" });
    this.bar = h("div", { class: "bar" }, SOURCES.map((name) => h("i", { class: `src ${name}`, title: name })));
    this.numbers = Object.fromEntries(["jobs", "stolen", "given", "handoffs"].map((k) => [k, h("b")]));
    const number = (key, label) => h("div", { class: "number" }, this.numbers[key], h("span", {}, label));
    this.el = h("article", { class: "p-card", data: { p } },
      h("header", {},
        h("div", { class: "p-name" },
          svg("svg", { viewBox: "0 0 44 44", class: "ring", "aria-hidden": "true" },
            svg("circle", { cx: 22, cy: 22, r: 18, class: "ring-back" }), this.ring),
          h("h3", {}, `P${p}`)),
        h("div", { class: "p-who" }, this.state, this.where),
        this.busy),
      h("div", { class: "row" }, h("span", { class: "key" }, "runs"), this.now),
      h("div", { class: "row" }, h("span", { class: "key" }, "run queue ", this.queued), this.queue.el),
      h("div", { class: "row" }, h("span", { class: "key" }, "threads"),
        h("div", { class: "ms-row" }, this.ms, this.msText)),
      h("div", { class: "row" }, h("span", { class: "key" }, "its Gs"), this.parked),
      h("div", { class: "row" }, h("span", { class: "key" }, "found in"), h("div", { class: "grow" }, this.bar, this.found)),
      h("footer", {}, number("jobs", "jobs/s"), number("stolen", "stole"), number("given", "gave"), number("handoffs", "hand-offs")),
    );
  }

  show(p, queue, names, past) {
    const el = this.el;
    el.dataset.state = p.state;
    say(this.state, STATES[p.state] ?? p.state);
    say(this.where, p.pid ? `pid ${p.pid}${p.core === null ? "" : ` · core ${p.core}`} · ${bytes(p.rss)}` : "");
    const mine = (read) => (s) => { const at = s.ps.find((each) => each.p === this.p); return at ? read(at) : 0; };
    const running = mine((each) => each.state_s.running ?? 0);
    const share = Math.min(1, past.rate(running, 3000));
    this.ring.style.strokeDasharray = `${(share * 100).toFixed(1)} 100`;
    this.busy.draw(past.course(running), 1);
    el.setAttribute("aria-label", `P${p.p}, ${p.state}, ${Math.round(share * 100)} % busy`);
    this.#current(p);
    const waiting = Math.max(p.fresh, queue?.fresh.length ?? 0); // of two moments
    this.queue.show(queue ? queue.fresh.map((k) => names[k]) : [], waiting);
    say(this.queued, count(waiting));
    this.#threads(p);
    this.#sources(p, past);
    const gs = p.gs;
    say(this.parked, `${count(gs.waiting ?? 0)} waiting · ${count(gs.runnable ?? 0)} runnable · ${count(p.started)} started`);
    say(this.numbers.jobs, rate(past.rate(mine((each) => each.jobs_finished))));
    say(this.numbers.stolen, count(p.stolen + (p.children.in ?? 0)));
    say(this.numbers.given, count(p.lost + (p.children.out ?? 0)));
    say(this.numbers.handoffs, count(Object.values(p.handoffs).reduce((a, b) => a + b, 0)));
  }

  #current(p) {
    const name = p.running;
    toggle(this.now, "none", !name);
    say(this.fn, name ? short(name) : p.state === "idle" ? "nothing: it waits for work" : "between two Gs");
    this.fn.title = name ?? "";
    this.now.style.setProperty("--fn", name ? colour(name) : "transparent");
    say(this.since, name && p.running_s >= 0.02 ? span(p.running_s) : "");
  }

  /** The M that holds P, those in calls without P, and idle ones. */
  #threads(p) {
    const calls = Math.min(p.gs.syscall ?? 0, Math.max(0, p.ms - 1)), idle = p.idle_ms;
    const kinds = [];
    if (p.up) kinds.push("holds");
    for (let i = 0; i < calls; i++) kinds.push("call");
    for (let i = 0; i < idle; i++) kinds.push("rest");
    const shown = kinds.slice(0, MS_SHOWN);
    while (this.ms.children.length < shown.length) this.ms.append(h("i"));
    while (this.ms.children.length > shown.length) this.ms.lastChild.remove();
    shown.forEach((kind, i) => {
      const m = this.ms.children[i];
      if (m.className !== `m ${kind}`) m.className = `m ${kind}`;
    });
    const words = [p.up ? "1 holds P" : "none", calls && `${count(calls)} in calls`, idle && `${count(idle)} idle`];
    say(this.msText, words.filter(Boolean).join(" · "));
    this.ms.setAttribute("aria-label", this.msText.textContent);
  }

  #sources(p, past) {
    const was = past.since(10000)?.shown.snapshot.ps.find((each) => each.p === p.p)?.picks ?? {};
    const grown = SOURCES.map((name) => Math.max(0, (p.picks[name] ?? 0) - (was[name] ?? 0)));
    const total = grown.reduce((a, b) => a + b, 0);
    toggle(this.bar, "none", !total);
    const largest = SOURCES.map((name, i) => [name, grown[i]]).filter(([, n]) => n).sort((a, b) => b[1] - a[1]).slice(0, 3);
    say(this.found, total ? largest.map(([name, n]) => `${Math.max(1, Math.round((100 * n) / total))} % ${name}`).join(" · ") : "no picks in 10 s");
    [...this.bar.children].forEach((part, i) => {
      const share = total ? (100 * grown[i]) / total : 0;
      part.style.width = `${share}%`;
      part.title = `${SOURCES[i]}: ${Math.round(share)} % of ${count(total)} picks in 10 s`;
    });
  }
}

export class Picture {
  constructor() {
    this.cards = new Map();
    this.hosts = new Hosts();
    this.queue = new Squares("global queue");
    this.queued = h("b", { class: "big" });
    this.queueFacts = h("dl", { class: "facts" });
    this.legend = h("ul", { class: "legend" });
    this.events = h("ol", { class: "events" });
    this.isolated = h("div", { class: "isolated" });
    this.isolatedPanel = h("section", { class: "panel", hidden: true },
      h("h2", {}, "Isolated workers"), this.isolated);
    this.arcs = svg("svg", { class: "arcs", "aria-hidden": "true" });
    this.grid = h("div", { class: "p-grid" }, this.arcs);
    this.stats = Object.fromEntries(
      ["jobs", "busy", "queued", "wait", "run", "failed"].map((k) => [k, { value: h("b"), note: h("span") }]));
    this.course = spark(160, 34);
    this.empty = lesson();
    const stat = (key, label, more) => h("div", { class: `stat ${key}` },
      h("span", { class: "label" }, label), this.stats[key].value, this.stats[key].note, more);
    this.el = h("div", { class: "picture" },
      h("section", { class: "stats", "aria-label": "Numbers" },
        stat("jobs", "jobs per second", this.course), stat("busy", "Ps busy"), stat("queued", "waiting"),
        stat("wait", "wait, p50"), stat("run", "run, p50"), stat("failed", "failed")),
      this.empty,
      h("div", { class: "stage" },
        h("aside", { class: "side" },
          h("section", { class: "panel queue" }, h("h2", {}, "Global queue"), this.queued, this.queue.el, this.queueFacts),
          h("section", { class: "panel functions" }, h("h2", {}, "Functions"), this.legend)),
        h("section", { class: "ps", "aria-label": "Ps" }, this.grid, this.hosts.el, this.isolatedPanel,
          h("section", { class: "panel" }, h("h2", {}, "What moves"), this.events))),
    );
  }

  show(past) {
    const { snapshot: status, picture } = past.last.shown;
    this.#numbers(status, past);
    this.#queue(status, picture);
    const queues = new Map(picture.ps.map((each) => [each.p, each]));
    for (const p of status.ps) {
      if (!this.cards.has(p.p)) {
        const card = new PCard(p.p);
        this.cards.set(p.p, card);
        this.grid.insertBefore(card.el, this.arcs);
      }
      this.cards.get(p.p).show(p, queues.get(p.p), picture.names, past);
    }
    for (const [number, card] of this.cards) {
      if (status.ps.some((p) => p.p === number)) continue;
      card.el.remove();
      this.cards.delete(number);
    }
    this.hosts.show(status, queues, picture.names, past);
    this.#functions(status, picture);
    this.#isolated(status.isolated);
    const before = past.all.at(-2);
    if (before) this.#moved(moves(before.shown.snapshot, status));
    if (!this.events.children.length) {
      this.events.append(h("li", { class: "dim none" }, "Steals, hand-offs and failures appear here."));
    }
  }

  #numbers(status, past) {
    const set = (key, value, note = "") => {
      say(this.stats[key].value, value);
      say(this.stats[key].note, note);
    };
    set("jobs", rate(past.rate(finished)), `${count(finished(status))} so far`);
    this.course.draw(past.course(finished));
    const busy = past.rate((s) => s.ps.reduce((n, p) => n + (p.state_s.running ?? 0), 0), 3000);
    set("busy", `${Math.round((100 * Math.min(busy, status.procs)) / Math.max(1, status.procs))} %`, `of ${status.procs} Ps`);
    const all = [...status.ps, ...status.cluster.hosts];
    const leased = all.reduce((n, each) => n + each.fresh, 0);
    set("queued", count(status.queue.global + leased), `${count(all.reduce((n, each) => n + each.started, 0))} started`);
    for (const name of ["wait", "run"]) {
      const worst = past.percentile(name, 0.99);
      set(name, span(past.percentile(name, 0.5)), worst === null ? "in 10 s" : `p99 ${span(worst)}`);
    }
    const bad = failed(status);
    set("failed", count(bad), finished(status) ? `${((100 * bad) / finished(status)).toFixed(bad ? 1 : 0)} % of all` : "");
    toggle(this.stats.failed.value.parentElement, "bad", bad > 0);
    toggle(this.empty, "shown", status.jobs.submitted === 0 && finished(status) === 0);
  }

  #queue(status, picture) {
    const q = status.queue;
    say(this.queued, count(q.global));
    this.queue.show(picture.global.map((k) => picture.names[k]), Math.max(q.global, picture.global.length));
    const facts = [
      q.global && ["oldest", span(q.oldest_age_s)], q.delayed && ["delayed", count(q.delayed)],
      q.limited && ["held by limits", count(q.limited)], q.suspects && ["suspects", count(q.suspects)],
      q.bytes && ["arguments", bytes(q.bytes)],
      ...Object.entries(status.durable.jobs).filter(([, n]) => n).map(([k, n]) => [`durable, ${k}`, count(n)]),
    ].filter(Boolean);
    const text = JSON.stringify(facts);
    if (this.factsText === text) return;
    this.factsText = text;
    this.queueFacts.replaceChildren(...facts.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
  }

  #functions(status, picture) {
    const counts = new Map();
    const add = (name, n = 1) => counts.set(name, (counts.get(name) ?? 0) + n);
    picture.global.forEach((k) => add(picture.names[k]));
    for (const p of picture.ps) {
      p.fresh.forEach((k) => add(picture.names[k]));
      p.begun.forEach(([k]) => add(picture.names[k]));
    }
    for (const p of status.ps) if (p.running && !counts.has(p.running)) add(p.running);
    for (const name of counts.keys()) (this.known ??= new Map()).set(name, Date.now());
    for (const [name, at] of this.known ?? []) if (Date.now() - at > 20000) this.known.delete(name);
    const rows = [...(this.known ?? new Map()).keys()].sort().slice(0, 12);
    morph(this.legend, rows.length ? rows.map((name) => {
      const dot = h("i", { class: "g" });
      dot.style.background = colour(name);
      return h("li", { data: { key: name } }, h("a", { href: `#/jobs?function=${encodeURIComponent(name)}`, title: name }, dot,
        h("span", {}, short(name)), h("b", { class: "mono" }, counts.get(name) ? count(counts.get(name)) : "")));
    }) : h("li", { class: "dim" }, "None runs or waits."));
  }

  #isolated(isolated) {
    this.isolatedPanel.hidden = !isolated.workers.length && !isolated.queued;
    if (this.isolatedPanel.hidden) return;
    this.isolated.replaceChildren(...isolated.workers.map((w) => {
      const dot = h("i", { class: "g" });
      if (w.running) dot.style.background = colour(w.running);
      return h("div", { class: `iso ${w.state}` }, dot, h("span", {}, w.running ? short(w.running) : w.state),
        h("span", { class: "dim mono" }, w.pid ? `pid ${w.pid}` : "", w.running ? ` · ${span(w.running_s)}` : ""));
    }), isolated.queued ? h("div", { class: "iso" }, `${count(isolated.queued)} wait`) : "");
  }

  #moved(found) {
    const now = new Date().toTimeString().slice(0, 8);
    for (const move of found) {
      this.events.querySelector(".none")?.remove();
      const first = this.events.firstElementChild;
      if (first?.dataset.kind === move.kind && first.dataset.at === now && first.dataset.p === String(move.p)) {
        first.remove(); // one line for each second and P
      }
      this.events.prepend(h("li", { class: move.kind, data: { kind: move.kind, p: String(move.p), at: now } },
        h("time", { class: "mono dim" }, now), h("span", {}, move.text)));
      while (this.events.children.length > EVENTS_SHOWN) this.events.lastChild.remove();
      const card = this.#card(move.p);
      if (!card) continue;
      if (move.kind === "steal") this.#arc(move);
      flash(card, move.kind);
    }
  }

  /** The card of a P, or of the host that has this number. */
  #card(p) {
    return this.cards.get(p)?.el ?? this.hosts.card(p);
  }

  /** An arc from the victim's card to the thief's. */
  #arc(move) {
    document.body.dataset.steals = Number(document.body.dataset.steals ?? 0) + move.n;
    const from = this.#card(move.from), to = this.#card(move.p);
    if (!from || !to || calm.matches || this.arcs.children.length > 12) return;
    const box = this.grid.getBoundingClientRect();
    const at = (el) => {
      const r = el.querySelector(".squares").getBoundingClientRect();
      return [r.left - box.left + Math.min(60, r.width / 2), r.top - box.top + r.height / 2];
    };
    const [x1, y1] = at(from), [x2, y2] = at(to);
    const lift = Math.max(40, Math.hypot(x2 - x1, y2 - y1) / 4);
    const d = `M${x1},${y1}C${x1},${y1 - lift} ${x2},${y2 - lift} ${x2},${y2}`;
    const arc = svg("path", { d, class: "arc", pathLength: 1, "stroke-width": Math.min(6, 1.5 + Math.log2(move.n)) });
    const label = svg("text", { x: (x1 + x2) / 2, y: Math.min(y1, y2) - lift * 0.72, class: "arc-text" }, `${move.n}`);
    this.arcs.append(arc, label);
    setTimeout(() => (arc.remove(), label.remove()), 1300);
  }
}

function flash(card, kind) {
  card.classList.remove("f-steal", "f-handoff", "f-failure", "f-overrun", "f-worker");
  void card.offsetWidth; // begin the animation anew
  card.classList.add(`f-${kind}`);
}

/** The view of a daemon that has not run anything: the next command. */
function lesson() {
  const line = (command, text) => h("li", {}, h("code", {}, command), copyButton(command), h("span", { class: "dim" }, text));
  const program = 'import gmpd\n\ndef square(x):\n    return x * x\n\nwith gmpd.Client() as c:\n    print(sum(c.map(square, range(100_000))))\n';
  return h("section", { class: "panel lesson" },
    h("div", {}, h("h2", {}, "No job has run yet"),
    h("p", {}, "A job is a function with its arguments. It becomes a ", h("b", {}, "G"), ", waits in a queue, and runs when an ",
      h("b", {}, "M"), ", a thread that holds a ", h("b", {}, "P"), ", picks it. Start some and watch:"),
    h("ul", {},
      line("gmpd demo", "work of every kind on this daemon"),
      line("gmpd submit math:sqrt 2 --wait", "one job"),
      line("seq 1000 | gmpd map math:sqrt", "a thousand, as xargs"))),
    h("div", {}, h("pre", {}, program), copyButton(program, "Copy the program")));
}

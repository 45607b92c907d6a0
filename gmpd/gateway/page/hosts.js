// The hosts of a cluster in the picture: a card for each. Without an engine there is nothing.

import { colour, count, h, rate, say, short, span, spark, svg, toggle } from "./dom.js";
import { hostName } from "./places.js";
import { Squares } from "./squares.js";

const STATES = {
  joining: "joining: its daemon starts", idle: "idle", running: "running", leaving: "leaving: it gets no more jobs",
  refused: "takes no work", lost: "lost",
};
const CORES_SHOWN = 24;
const BATCHES_MAX = 2;

class HostCard {
  constructor(name) {
    this.name = name;
    this.state = h("span", { class: "state" });
    this.where = h("span", { class: "dim mono" });
    this.ring = svg("circle", { cx: 22, cy: 22, r: 18, class: "ring-value", pathLength: 100 });
    this.cores = h("b");
    this.coresWord = h("small");
    this.course = spark(120, 26);
    this.fn = h("span", { class: "fn" });
    this.since = h("span", { class: "since mono" });
    this.now = h("a", { class: "now" }, h("span", { class: "tag" }, "G"), this.fn, this.since);
    this.there = new Squares(`jobs at host ${name}`);
    this.thereCount = h("b");
    this.known = h("span", { class: "dim known" });
    this.fresh = new Squares(`jobs not sent to host ${name}`);
    this.freshCount = h("b");
    this.marks = h("div", { class: "ms", role: "img" });
    this.marksText = h("span", { class: "dim" });
    this.batches = h("div", { class: "batches", role: "img" }, Array.from({ length: BATCHES_MAX }, () => h("i", { class: "batch" })));
    this.batchesText = h("span", { class: "dim" });
    this.why = h("p");
    this.loss = h("a", { class: "dim", href: "#/warnings" });
    this.numbers = Object.fromEntries(["jobs", "stolen", "given", "losses"].map((k) => [k, h("b")]));
    this.#build();
  }

  #build() {
    const row = (key, ...parts) => h("div", { class: "row" }, h("span", { class: "key" }, key), ...parts);
    const number = (key, label) => h("div", { class: "number" }, this.numbers[key], h("span", {}, label));
    this.whyRow = row("why", this.why);
    this.lossRow = row("last loss", this.loss);
    this.work = [
      row("runs", this.now),
      row(h("span", {}, "sent ", this.thereCount), h("div", {}, this.there.el, this.known)),
      row(h("span", {}, "to send ", this.freshCount), this.fresh.el),
      row("cores", h("div", { class: "ms-row" }, this.marks, this.marksText)),
      row("batches", h("div", { class: "ms-row" }, this.batches, this.batchesText)),
    ];
    this.el = h("article", { class: "p-card host-card", tabindex: 0, data: { host: this.name } },
      h("header", {},
        h("div", { class: "p-name" },
          svg("svg", { viewBox: "0 0 44 44", class: "ring", "aria-hidden": "true" },
            svg("circle", { cx: 22, cy: 22, r: 18, class: "ring-back" }), this.ring),
          h("span", { class: "cores" }, this.cores, this.coresWord)),
        h("div", { class: "p-who" }, h("h3", { title: this.name }, hostName(this.name)), this.state, this.where),
        this.course),
      this.whyRow, ...this.work, this.lossRow,
      h("footer", {}, number("jobs", "jobs/s"), number("stolen", "stole"), number("given", "gave"), number("losses", "times lost")));
  }

  show(host, queue, names, past, now) {
    const serves = ["idle", "running", "leaving"].includes(host.state);
    const busy = Math.min(host.cores, host.started);
    this.el.dataset.state = host.state;
    say(this.state, STATES[host.state] ?? host.state);
    say(this.where, host.pid ? `bridge ${host.pid} · ${span(host.cpu_s)} CPU` : "");
    say(this.cores, count(host.cores));
    say(this.coresWord, host.cores === 1 ? "core" : "cores");
    this.ring.style.strokeDasharray = `${((100 * busy) / Math.max(1, host.cores)).toFixed(1)} 100`;
    this.el.setAttribute("aria-label", `Host ${this.name}, ${host.state}, ${host.started} jobs there, ${host.cores} cores`);
    for (const each of this.work) each.hidden = !serves;
    this.whyRow.hidden = serves || !host.problem;
    say(this.why, host.problem);
    this.#loss(host, now);
    const mine = (read) => (status) => {
      const at = status.cluster.hosts.find((each) => each.name === this.name && each.p === host.p);
      return at ? read(at) : 0;
    };
    const jobs = mine((each) => each.jobs_finished), batches = mine((each) => each.batches);
    this.course.draw(past.course(jobs));
    const perS = past.rate(jobs);
    if (serves) this.#work(host, busy, queue, names);
    if (serves) this.#batches(host, past.rate(batches), perS);
    say(this.numbers.jobs, rate(perS));
    say(this.numbers.stolen, count(host.stolen));
    say(this.numbers.given, count(host.lost));
    say(this.numbers.losses, count(host.losses));
    toggle(this.numbers.losses, "bad", host.losses > 0);
  }

  #work(host, busy, queue, names) {
    const begun = queue?.begun ?? [], fresh = queue?.fresh ?? [];
    const there = Math.max(host.started, begun.length), waiting = Math.max(host.fresh, fresh.length); // of two moments
    const runs = Math.max(0, host.started - host.waiting);
    const oldest = begun.length ? names[begun[0][0]] : null;
    toggle(this.now, "none", !oldest);
    say(this.fn, oldest ? short(oldest) : "nothing: it waits for work");
    this.fn.title = oldest ?? "";
    this.now.href = oldest ? `#/jobs?function=${encodeURIComponent(oldest)}` : "#/jobs";
    this.now.style.setProperty("--fn", oldest ? colour(oldest) : "transparent");
    say(this.since, oldest && begun[0][2] >= 0.02 ? span(begun[0][2]) : "");
    this.there.show(begun.map(([k]) => names[k]), there);
    say(this.thereCount, count(there));
    say(this.known, runs ? `${count(runs)} begun${host.waiting ? ` · ${count(host.waiting)} not yet` : ""}` : "");
    this.fresh.show(fresh.map((k) => names[k]), waiting);
    say(this.freshCount, count(waiting));
    this.#cores(host.cores, busy);
  }

  #cores(cores, busy) {
    const shown = Math.min(cores, CORES_SHOWN);
    while (this.marks.children.length < shown) this.marks.append(h("i"));
    while (this.marks.children.length > shown) this.marks.lastChild.remove();
    [...this.marks.children].forEach((mark, i) => {
      const kind = i < Math.round((busy * shown) / cores) ? "core on" : "core";
      if (mark.className !== kind) mark.className = kind;
    });
    say(this.marksText, busy ? `work for ${busy === cores ? (cores === 1 ? "it" : `all ${count(cores)}`) : `${count(busy)} of ${count(cores)}`}` : "no work");
    this.marks.setAttribute("aria-label", this.marksText.textContent);
  }

  #batches(host, perS, jobsPerS) {
    [...this.batches.children].forEach((mark, i) => toggle(mark, "away", i < host.batches_away));
    const words = [`${host.batches_away} on the way`, perS >= 0.05 && `${rate(perS)}/s`, perS >= 0.05 && jobsPerS >= perS && `${rate(jobsPerS / perS)} jobs each`];
    say(this.batchesText, words.filter(Boolean).join(" · "));
    this.batches.setAttribute("aria-label", `batches: ${this.batchesText.textContent}`);
  }

  #loss(host, now) {
    this.lossRow.hidden = !host.losses;
    if (!host.losses) return;
    const cost = host.lost_jobs ? ` · ${count(host.lost_jobs)} begun ${host.lost_jobs === 1 ? "job" : "jobs"} lost` : "";
    const why = host.loss === host.problem ? "" : ` · ${host.loss}`;
    say(this.loss, `${span(Math.max(0, now - host.lost_at))} ago${cost}${why}`);
  }
}

export class Hosts {
  constructor() {
    this.cards = new Map();
    this.engine = h("span", { class: "dim mono" });
    this.sum = h("span", { class: "dim" });
    this.problem = h("p", { class: "host-problem", hidden: true, role: "status" });
    this.none = h("p", { class: "dim", hidden: true }, "No host has come yet. Jobs run on this machine meanwhile.");
    this.grid = h("div", { class: "p-grid" });
    this.el = h("section", { class: "hosts", "aria-label": "Hosts", hidden: true },
      h("header", { class: "hosts-head" }, h("h2", {}, "Hosts"), this.engine, h("span", { class: "grow" }), this.sum),
      this.problem, this.none, this.grid);
  }

  /** The card of the host that has this number. */
  card(p) {
    return this.byP?.get(p)?.el;
  }

  show(status, queues, names, past) {
    const { engine, address, problem, hosts } = status.cluster;
    this.el.hidden = !engine && !hosts.length;
    if (this.el.hidden) return;
    say(this.engine, engine ? `${engine} at ${address}` : "given up: what has begun ends");
    const serving = hosts.filter((each) => ["idle", "running"].includes(each.state));
    const cores = serving.reduce((n, each) => n + each.cores, 0);
    say(this.sum, hosts.length ? `${serving.length} of ${hosts.length} take work · ${count(cores)} cores` : "");
    this.problem.hidden = !problem;
    say(this.problem, problem);
    this.none.hidden = hosts.length > 0 || Boolean(problem);
    this.byP = new Map();
    const now = status.started_at + status.uptime_s;
    for (const host of hosts) {
      let card = this.cards.get(host.name);
      if (!card) {
        this.cards.set(host.name, card = new HostCard(host.name));
        this.grid.append(card.el);
      }
      if (host.p !== null) this.byP.set(host.p, card);
      card.show(host, queues.get(host.p), names, past, now);
    }
    for (const [name, card] of this.cards) {
      if (hosts.some((each) => each.name === name)) continue;
      card.el.remove();
      this.cards.delete(name);
    }
  }
}

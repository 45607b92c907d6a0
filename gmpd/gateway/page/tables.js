// The tables: jobs, functions, failures, Gs, clients, warnings, settings. Each looks again every two
// seconds while it is shown.

import { get } from "./api.js";
import { ago, bytes, colour, copyButton, count, h, moment, morph, say, short, span } from "./dom.js";
import { placeName } from "./places.js";
import { Table, cells, fnCell, link, pill, square } from "./table.js";

const JOB_STATES = ["running", "queued", "blocked", "done", "failed", "cancelled", "expired", "quarantined", "unknown"];
const USUAL_STATES = 6;
/** How long it waits has a column. */
const SINCE = /^It has waited [\d.]+ \w+/;
const G_STATES = ["running", "runnable", "waiting", "syscall"];

export class JobsView extends Table {
  constructor() {
    super("/jobs", "Jobs");
  }

  fetch({ state, function: fn, kind, after }) {
    return get("/jobs", { state, function: fn, kind, after, limit: 60 });
  }

  draw(told, params) {
    const counts = Object.entries(told.counts).map(([k, n]) => `${count(n)} ${k}`).join(", ");
    say(this.note, counts ? `Durable: ${counts}.` : "No durable jobs. Volatile ones are listed until they end.");
    const states = JOB_STATES.filter((each, i) => i < USUAL_STATES || told.counts[each] || params.state === each);
    morph(this.filters, this.filter("kind", ["volatile", "durable"], params), this.filter("state", states, params),
      this.search(params, "module:function"));
    this.rows(
      [{ label: "State" }, { label: "Function" }, { label: "Job", class: "mono" }, { label: "Client" }, { label: "Where", class: "mono" },
        { label: "Attempt", class: "num" }, { label: "Accepted" }, { label: "Said", class: "wide" }],
      told.jobs.map((job) => cells(job.id, `#/jobs/${job.id}`, pill(job.state), fnCell(job.function, this.path, params),
        h("a", { class: "open", href: `#/jobs/${job.id}` }, job.id.slice(0, 6), "…", job.id.slice(-6)), job.client,
        job.p === null ? (job.pid ? `pid ${job.pid}` : "") : placeName(job.p), job.attempt,
        h("time", { title: moment(job.created) }, ago(job.created)),
        job.progress ? `${job.progress.done}${job.progress.total ? ` of ${job.progress.total}` : ""} ${job.progress.note}` : job.text)),
      Object.values(params).some(Boolean) ? "No job is like that."
        : "No job waits or runs. Durable ones stay here when they have ended: `gmpd submit --durable module:function`");
    this.pages(params.after && ["Newest", link(this.path, params, { after: "" })], told.next && ["Older", link(this.path, params, { after: told.next })]);
  }
}

const HOW = { error: "raised", timeout: "ran out of time", lost: "its worker died" };
const FAILURES_SHOWN = 200;
const JOBS_SHOWN = 20;

/** Failed attempts, those of one error together. */
export class FailuresView extends Table {
  constructor() {
    super("/failures", "Failures");
    this.sorted = "at";
  }

  /** All of them only if there are new ones: tracebacks are long. */
  async fetch() {
    const { failed, kept } = await get("/failures", { limit: 1 });
    if (this.told?.failed !== failed || this.told.kept !== kept) this.told = await get("/failures", { limit: FAILURES_SHOWN });
    return this.told;
  }

  draw(told, params) {
    const shown = told.failures.length < told.kept ? `the newest ${count(told.failures.length)} of ` : "";
    say(this.note, told.failed ? `${count(told.failed)} attempts have failed since the daemon began; ${shown}${count(told.kept)} are kept.` : "");
    const text = (params.function ?? "").toLowerCase(), how = params.outcome ?? "";
    const matches = (f) => (!how || f.outcome === how) && `${f.function} ${f.type} ${f.message} ${f.text}`.toLowerCase().includes(text);
    const sort = params.sort ?? "at", up = params.order === "up" ? -1 : 1;
    const by = { at: (g) => g.last.at, n: (g) => g.all.length, function: (g) => g.last.function, error: (g) => said(g.last) }[sort] ?? ((g) => g.last.at);
    const groups = grouped(told.failures.filter(matches)).sort((a, b) => (by(a) < by(b) ? 1 : by(a) > by(b) ? -1 : 0) * up);
    const open = new Set((params.open ?? "").split(",").filter(Boolean));
    morph(this.filters, this.filter("outcome", ["error", "timeout", "lost"], params), this.search(params, "part of a function or an error"));
    const column = (name, label, kind, start) => this.column(name, label, kind, params, start);
    this.rows(
      [{ label: "", class: "chevron" }, column("function", "Function", "", "up"), column("error", "Error", "wide", "up"), { label: "How" }, column("n", "Times", "num"),
        column("at", "Last"), { label: "On", class: "mono" }, { label: "Attempt", class: "num" }],
      groups.map((group) => this.#row(group, params, open)),
      told.failed ? "No failure is like that." : "No attempt of a job has failed. `gmpd failures` has the same list.");
  }

  #row({ key, last, all }, params, open) {
    const is = open.has(key), others = is ? [...open].filter((each) => each !== key) : [...open, key];
    const href = link(this.path, params, { open: others.join(",") });
    const row = cells(key, href,
      h("a", { class: "open toggle", href, "aria-expanded": String(is), "aria-label": `${short(last.function)}: ${said(last)}` }, "▸"),
      fnCell(last.function, this.path, params), h("span", { class: "error-text" }, said(last)), pill(last.outcome), count(all.length),
      h("time", { title: moment(last.at) }, ago(last.at)), last.p === null ? "" : placeName(last.p), `${last.attempt}${last.again ? ", again" : ""}`);
    row.class = is ? "is-open" : "";
    if (is) row.more = more(last, all);
    return row;
  }
}

function said(failure) {
  return [failure.type, failure.message].filter(Boolean).join(": ") || failure.text || HOW[failure.outcome];
}

function grouped(failures) {
  const groups = new Map();
  for (const each of failures) {
    const key = hash(`${each.function} ${each.outcome} ${each.type} ${each.message}`);
    if (!groups.has(key)) groups.set(key, { key, last: each, all: [] });
    groups.get(key).all.push(each);
  }
  return [...groups.values()];
}

function hash(text) {
  let found = 2166136261;
  for (const char of text) found = Math.imul(found ^ char.codePointAt(0), 16777619);
  return (found >>> 0).toString(16);
}

function more(last, all) {
  const text = last.traceback || said(last);
  return h("div", { class: "failure" },
    h("div", { class: "table-head" }, h("h3", {}, last.traceback ? "Traceback of the last one" : "No traceback"), h("span", { class: "grow" }), copyButton(text)),
    last.text ? h("p", {}, last.text) : "",
    h("pre", { class: "traceback", tabindex: 0, "aria-label": "traceback" }, text),
    h("ul", { class: "failed-jobs" }, all.slice(0, JOBS_SHOWN).map((each) => h("li", { data: { key: String(each.number) } },
      h("time", { class: "dim mono" }, moment(each.at)), jobOf(each),
      h("span", { class: "dim" }, [each.client, each.p === null ? "" : placeName(each.p), `attempt ${each.attempt}${each.again ? ", tried again" : ""}`].filter(Boolean).join(" · "))))),
    all.length > JOBS_SHOWN ? h("p", { class: "dim" }, `and ${count(all.length - JOBS_SHOWN)} before`) : "");
}

/** The daemon knows durable jobs, and those that are tried again. */
function jobOf(failure) {
  const known = failure.client === "durable jobs" || failure.again;
  return known ? h("a", { class: "mono", href: `#/jobs/${failure.id}` }, failure.id) : h("span", { class: "mono" }, failure.id);
}

export class GsView extends Table {
  constructor() {
    super("/gs", "Gs");
    this.sorted = "since_s";
  }

  fetch({ state, function: fn, sort, order, offset, p }) {
    return get("/gs", { state, function: fn, sort, order, offset, p, limit: 100 });
  }

  draw(told, params) {
    const seen = told.seen < told.total ? `${count(told.seen)} of ${count(told.total)} looked at, ` : "";
    const silent = told.silent.length ? ` P${told.silent.join(", P")} did not answer in time.` : "";
    say(this.note, `${seen}${count(told.matching)} match.${silent}`);
    morph(this.filters, params.p === undefined ? null : h("a", { class: "chip on", href: link(this.path, params, { p: "", offset: "" }), data: { key: "p" } }, `P${params.p} ×`),
      this.filter("state", G_STATES, params), this.search(params, "part of a function's name"));
    const column = (name, label, kind) => this.column(name, label, kind, params);
    this.rows(
      [column("id", "G", "mono num"), column("state", "State"), column("function", "Function"), column("p", "P", "mono"),
        { label: "M", class: "mono" }, column("reason", "Waits for"), { label: "Why", class: "wide" }, column("since_s", "Since", "num")],
      told.gs.map((g) => cells(`${g.p}.${g.id}`, `#/gs/${g.p}.${g.id}`, h("a", { class: "open", href: `#/gs/${g.p}.${g.id}` }, g.id),
        pill(g.state), fnCell(g.function, this.path, params), `P${g.p}`, g.m === null ? "" : `M${g.m}`, g.reason,
        h("span", { title: g.why.hint, data: { code: g.why.code } }, g.why.sentence.replace(SINCE, "It waits")), span(g.since_s))),
      Object.values(params).some(Boolean) ? "No G is like that."
        : "No G has begun. `gmpd submit asyncio:sleep 60` makes one that waits.");
    const at = Number(params.offset ?? 0);
    this.pages(at && ["Before", link(this.path, params, { offset: Math.max(0, at - 100) || "" })],
      at + told.gs.length < told.matching && ["Further", link(this.path, params, { offset: at + 100 })]);
  }
}

export class FunctionsView extends Table {
  constructor() {
    super("/functions", "Functions");
    this.sorted = "time_s";
  }

  fetch() {
    return get("/functions");
  }

  draw(told, params) {
    const fn = params.function ?? "", sort = params.sort ?? "time_s";
    const jobs = (each) => Object.values(each.finished).reduce((a, b) => a + b, 0);
    const bad = (each) => ["error", "timeout", "lost"].reduce((n, how) => n + (each.finished[how] ?? 0), 0);
    const keys = { jobs, bad, function: (each) => each.function };
    const by = keys[sort] ?? ((each) => each[sort] ?? 0);
    const rows = told.functions.filter((each) => each.function.includes(fn))
      .sort((a, b) => (by(a) < by(b) ? 1 : -1) * (params.order === "up" ? -1 : 1));
    const most = Math.max(...rows.map((each) => each.time_s), 1e-9);
    say(this.note, "Ended jobs since the daemon began. Run and wait: of attempts that ran to an end; delays and the time between two attempts are no wait.");
    morph(this.filters, this.search(params, "part of a function's name"));
    const column = (name, label, kind = "num", start = "down") => this.column(name, label, kind, params, start);
    this.rows(
      [column("function", "Function", "", "up"), column("jobs", "Jobs"), column("bad", "Failed"), column("time_s", "Time"), { label: "Share", class: "share" },
        column("on_p_s", "On P"), column("run_p50_s", "Run"), column("run_p99_s", "p99"), column("wait_p50_s", "Wait"), column("wait_p99_s", "p99")],
      rows.map((each) => {
        const bar = h("i", { class: "share-bar" });
        bar.style.width = `${Math.max(1, (100 * each.time_s) / most)}%`;
        bar.style.background = colour(each.function);
        return cells(each.function, "", fnCell(each.function, "/jobs", {}), count(jobs(each)),
          bad(each) ? h("a", { class: "bad", href: link("/failures", {}, { function: each.function }) }, count(bad(each))) : "0", span(each.time_s), bar, span(each.on_p_s),
          span(each.run_p50_s), span(each.run_p99_s), span(each.wait_p50_s), span(each.wait_p99_s));
      }),
      fn ? "No function is like that." : "No job has ended yet. `gmpd demo` runs some of every kind.");
  }
}

export class ClientsView extends Table {
  constructor() {
    super("/clients", "Clients");
  }

  fetch() {
    return get("/clients");
  }

  draw(told) {
    say(this.note, `${count(told.total)} connected; this gateway is one of them.`);
    this.rows(
      [{ label: "Client" }, { label: "Key" }, { label: "Jobs", class: "num" }, { label: "Arguments", class: "num" },
        { label: "Results not taken", class: "num" }, { label: "Outcomes", class: "num" }, { label: "Functions", class: "num" }],
      told.clients.map((c) => cells(String(c.sid), "", h("span", {}, c.name || "(no name)", c.store ? h("span", { class: "pill" }, "the store") : "",
        c.takes_no_results ? h("span", { class: "pill failed" }, "takes no results") : ""), c.key, count(c.jobs), bytes(c.argument_bytes),
        bytes(c.result_bytes), count(c.outcomes), count(c.functions))),
      "None.");
  }
}

export class WarningsView extends Table {
  constructor() {
    super("/warnings", "Warnings");
  }

  fetch() {
    return get("/warnings");
  }

  draw(told) {
    say(this.note, "What the daemon itself knows; `gmpd doctor` looks at the machine, too.");
    this.rows([{ label: "Level" }, { label: "About" }, { label: "What", class: "wide" }, { label: "Remedy", class: "wide" }],
      told.warnings.map((w, i) => cells(String(i), "", pill(w.level === "bad" ? "failed" : "blocked"), w.about, w.what, w.fix)),
      "Nothing is wrong.");
  }
}

export class ConfigView extends Table {
  constructor() {
    super("/config", "Configuration");
  }

  fetch() {
    return get("/config");
  }

  draw(told, params) {
    const set = told.settings.filter((each) => !each.default).length;
    say(this.note, `${set} of ${told.settings.length} keys are not at their defaults. Secrets are left out.`);
    morph(this.filters, this.search(params, "part of a key"));
    const wanted = params.function ?? "";
    this.rows([{ label: "Key", class: "mono" }, { label: "Value", class: "mono" }, { label: "From" }, { label: "Meaning", class: "wide" }],
      told.settings.filter((each) => each.key.includes(wanted)).map((each) => cells(each.key, "",
        each.default ? each.key : h("b", {}, each.key), each.value,
        each.default ? h("span", { class: "dim" }, "default") : `${each.layer} ${each.where}`, each.doc)),
      "No key is like that.");
  }
}

// Tables: jobs, Gs, clients, warnings, settings. Each has its state in the URL, and looks again
// every two seconds while it is shown.

import { get, post } from "./api.js";
import { ago, bytes, colour, copyButton, count, h, moment, say, short, span } from "./dom.js";

const JOB_STATES = ["running", "queued", "blocked", "done", "failed", "cancelled", "expired", "quarantined", "unknown"];
const G_STATES = ["running", "runnable", "waiting", "syscall"];

/** A link to this view with some parameters changed. */
function link(path, params, change = {}) {
  const all = Object.entries({ ...params, ...change }).filter(([, v]) => v !== "" && v != null);
  return `#${path}${all.length ? `?${new URLSearchParams(all)}` : ""}`;
}

function fnCell(name, path, params) {
  const dot = h("i", { class: "g" });
  dot.style.background = colour(name);
  return h("a", { class: "fn-link", href: link(path, params, { function: name, after: "" }), title: name }, dot, short(name));
}

function pill(state) {
  return h("span", { class: `pill ${state}` }, state);
}

/** What all tables share: a title, filters, rows that stay selected, a note. */
class Table {
  constructor(path, title) {
    this.path = path;
    this.note = h("p", { class: "note dim", role: "status" });
    this.filters = h("div", { class: "filters" });
    this.head = h("thead");
    this.body = h("tbody");
    this.el = h("section", { class: "panel table-view" },
      h("div", { class: "table-head" }, h("h2", {}, title), this.filters), this.note,
      h("div", { class: "scroll" }, h("table", {}, this.head, this.body)));
  }

  async load(params) {
    const key = this.key = {};
    try {
      const told = await this.fetch(params);
      if (this.key !== key) return;
      this.params = params;
      this.draw(told, params);
    } catch (error) {
      if (this.key === key) say(this.note, error.message);
    }
  }

  rows(columns, rows, none) {
    this.head.replaceChildren(h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each.class }, each.sort
      ? h("a", { href: each.sort, "aria-sort": each.order }, each.label, each.order ? (each.order === "up" ? " ↑" : " ↓") : "")
      : each.label))));
    const selected = this.body.querySelector(".selected")?.dataset.key;
    const focused = document.activeElement?.closest?.("tr")?.dataset.key;
    this.body.replaceChildren(...rows.map((cells) => {
      const row = h("tr", { data: { key: cells.key, href: cells.href ?? "" }, class: cells.key === selected ? "selected" : "" },
        cells.map((cell, i) => h("td", { class: columns[i].class, "data-label": columns[i].label }, cell ?? "")));
      if (cells.href) row.addEventListener("click", (event) => event.target.closest("a, button") || (location.hash = cells.href));
      return row;
    }));
    if (focused) this.body.querySelector(`[data-key="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    if (!rows.length) this.body.append(h("tr", {}, h("td", { class: "none", colspan: columns.length }, none)));
  }

  filter(name, words, params) {
    return h("div", { class: "chips", role: "group", "aria-label": name }, ["", ...words].map((word) => h("a", {
      class: `chip ${(params[name] ?? "") === word ? "on" : ""}`, href: link(this.path, params, { [name]: word, after: "", offset: "" }),
    }, word || "all")));
  }

  search(params, placeholder) {
    if (!this.input) {
      this.input = h("input", { type: "search", placeholder, "aria-label": placeholder, class: "search" });
      this.input.addEventListener("change", () => {
        location.hash = link(this.path, this.params, { function: this.input.value.trim(), after: "", offset: "" });
      });
    }
    if (document.activeElement !== this.input) this.input.value = params.function ?? "";
    return this.input;
  }
}

function cells(key, href, ...all) {
  return Object.assign(all, { key, href });
}

export class JobsView extends Table {
  constructor() {
    super("/jobs", "Jobs");
    this.older = h("nav", { class: "pager" });
    this.el.append(this.older);
  }

  fetch({ state, function: fn, kind, after }) {
    return get("/jobs", { state, function: fn, kind, after, limit: 60 });
  }

  draw(told, params) {
    const counts = Object.entries(told.counts).map(([k, n]) => `${count(n)} ${k}`).join(", ");
    say(this.note, counts ? `Durable: ${counts}.` : "No durable jobs. Volatile ones are listed until they end.");
    this.filters.replaceChildren(this.filter("state", JOB_STATES.slice(0, 6), params), this.search(params, "module:function"));
    this.rows(
      [{ label: "State" }, { label: "Function" }, { label: "Job", class: "mono" }, { label: "Client" }, { label: "Where", class: "mono" },
        { label: "Attempt", class: "num" }, { label: "Accepted" }, { label: "Said", class: "wide" }],
      told.jobs.map((job) => cells(job.id, `#/jobs/${job.id}`, pill(job.state), fnCell(job.function, this.path, params),
        h("a", { href: `#/jobs/${job.id}` }, job.id.slice(0, 6), "…", job.id.slice(-6)), job.client,
        job.p === null ? (job.pid ? `pid ${job.pid}` : "") : `P${job.p}`, job.attempt,
        h("time", { title: moment(job.created) }, ago(job.created)),
        job.progress ? `${job.progress.done}${job.progress.total ? ` of ${job.progress.total}` : ""} ${job.progress.note}` : job.text)),
      Object.values(params).some(Boolean) ? "No job is like that." : "No job waits or runs. Durable ones stay: gmpd submit --durable module:function");
    this.older.replaceChildren(...(told.next ? [h("a", { class: "chip", href: link(this.path, params, { after: told.next }) }, "Older")] : []),
      ...(params.after ? [h("a", { class: "chip", href: link(this.path, params, { after: "" }) }, "Newest")] : []));
  }
}

export class JobView {
  constructor() {
    this.el = h("section", { class: "panel job-view" });
  }

  async load({ id }) {
    try {
      const { job, story } = await get(`/jobs/${id}`);
      const [result, log, allow] = await Promise.all([
        job.durable && job.ended ? get(`/jobs/${id}/result`).catch((error) => ({ refused: error.message })) : null,
        get(`/jobs/${id}/log`).catch(() => null), allowed(),
      ]);
      this.#draw(job, story, result, log, allow);
    } catch (error) {
      this.el.replaceChildren(back(), h("p", { role: "status" }, error.message));
    }
  }

  #draw(job, story, result, log, allow) {
    const facts = [
      ["job", h("span", { class: "mono" }, job.id)], ["client", job.client], ["kind", job.durable ? "durable" : "volatile"],
      ["accepted", moment(job.created)], ["ended", job.ended && moment(job.ended)], ["attempt", job.attempt],
      ["where", job.p === null ? null : `P${job.p} · pid ${job.pid}`], ["unique", job.unique],
      ["progress", job.progress && `${job.progress.done} of ${job.progress.total ?? "?"} ${job.progress.note}`],
    ].filter(([, v]) => v !== null && v !== "" && v !== undefined);
    const dot = h("i", { class: "g" });
    dot.style.background = colour(job.function);
    const text = JSON.stringify([job.state, job.attempt, story.length, log?.text.length, result?.outcome]);
    if (this.text === text && this.shown === job.id) return; // it is being read
    this.text = text;
    this.shown = job.id;
    this.el.replaceChildren(back(),
      h("div", { class: "table-head" }, h("h2", {}, dot, job.function), pill(job.state), h("span", { class: "grow" }), ...actions(job, allow, () => this.load({ id: job.id }))),
      h("dl", { class: "facts wide" }, facts.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])),
      ...value(result),
      story.length ? h("h3", {}, "Attempts") : "",
      h("ol", { class: "story" }, story.map((each) => h("li", {},
        h("div", {}, h("b", {}, `#${each.n}`), pill(each.outcome), h("span", { class: "dim" },
          [each.p === null ? "" : `P${each.p}`, each.pid && `pid ${each.pid}`, each.began && moment(each.began), `ran ${span(each.ran_s)}`]
            .filter(Boolean).join(" · "))),
        each.text ? h("p", {}, each.text) : "", each.traceback ? h("pre", { class: "traceback" }, each.traceback) : ""))),
      log?.text ? h("h3", {}, "Output", log.left_out ? h("span", { class: "dim" }, ` (${bytes(log.left_out)} left out)`) : "") : "",
      log?.text ? h("pre", {}, log.text) : "");
  }
}

function back() {
  return h("a", { class: "back", href: "#/jobs" }, "← Jobs");
}

function value(result) {
  if (!result) return [];
  if (result.refused) return [h("p", { class: "dim" }, result.refused)];
  if (result.error) return [];
  const text = JSON.stringify(result.value, null, 2) ?? "null";
  return [h("h3", {}, "Value ", copyButton(text)), h("pre", { class: "value" }, text.slice(0, 20000))];
}

let allowing;
function allowed() {
  allowing ??= get("/config").then(({ settings }) => JSON.parse(settings.find((each) => each.key === "http.allow")?.value ?? "[]"));
  return allowing.catch(() => ((allowing = undefined), []));
}

function actions(job, allow, done) {
  const act = (word, label, sure) => {
    const button = h("button", { type: "button", class: "quiet" }, label);
    button.addEventListener("click", async () => {
      if (button.dataset.sure !== "yes") {
        button.dataset.sure = "yes";
        say(button, sure);
        setTimeout(() => ((button.dataset.sure = ""), say(button, label)), 4000);
        return;
      }
      const told = await post(`/jobs/${job.id}/${word}`).catch((error) => ({ why: error.message }));
      say(button, told.why || "Done");
      done();
    });
    return button;
  };
  const open = ["queued", "running", "blocked"].includes(job.state);
  return [
    allow.includes("cancel") && open ? act("cancel", "Cancel", "Cancel it: sure?") : "",
    allow.includes("retry") && job.durable && !open && job.state !== "done" ? act("retry", "Run again", "Run it again: sure?") : "",
  ];
}

export class GsView extends Table {
  constructor() {
    super("/gs", "Gs");
    this.pager = h("nav", { class: "pager" });
    this.el.append(this.pager);
  }

  fetch({ state, function: fn, sort, order, offset, p }) {
    return get("/gs", { state, function: fn, sort, order, offset, p, limit: 100 });
  }

  draw(told, params) {
    const seen = told.seen < told.total ? `${count(told.seen)} of ${count(told.total)} looked at, ` : "";
    const silent = told.silent.length ? ` P${told.silent.join(", P")} did not answer in time.` : "";
    say(this.note, `${seen}${count(told.matching)} match.${silent}`);
    this.filters.replaceChildren(this.filter("state", G_STATES, params), this.search(params, "part of a function's name"));
    const sort = params.sort ?? "since_s", order = params.order ?? "down";
    const column = (name, label, kind) => ({
      label, class: kind, order: sort === name ? order : undefined,
      sort: link(this.path, params, { sort: name, order: sort === name && order === "down" ? "up" : "down", offset: "" }),
    });
    this.rows(
      [column("id", "G", "mono num"), column("state", "State"), column("function", "Function"), column("p", "P", "mono"),
        { label: "M", class: "mono" }, column("reason", "Waits for"), column("since_s", "Since", "num")],
      told.gs.map((g) => cells(`${g.p}.${g.id}`, "", g.id, pill(g.state), fnCell(g.function, this.path, params),
        `P${g.p}`, g.m === null ? "" : `M${g.m}`, g.reason, span(g.since_s))),
      "No G is like that.");
    const at = Number(params.offset ?? 0);
    this.pager.replaceChildren(
      ...(at ? [h("a", { class: "chip", href: link(this.path, params, { offset: Math.max(0, at - 100) || "" }) }, "Before")] : []),
      ...(at + told.gs.length < told.matching ? [h("a", { class: "chip", href: link(this.path, params, { offset: at + 100 }) }, "Further")] : []));
  }
}

export class FunctionsView extends Table {
  constructor() {
    super("/functions", "Functions");
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
      .sort((a, b) => (by(a) < by(b) ? 1 : -1) * (sort === "function" ? -1 : 1));
    const most = Math.max(...rows.map((each) => each.time_s), 1e-9);
    say(this.note, "Ended jobs since the daemon began. Run and wait: of attempts that ran to an end; delays and the time between two attempts are no wait.");
    this.filters.replaceChildren(this.search(params, "part of a function's name"));
    const column = (name, label, kind = "num") => ({
      label, class: kind, order: sort === name ? "down" : undefined, sort: link(this.path, params, { sort: name }),
    });
    this.rows(
      [column("function", "Function", ""), column("jobs", "Jobs"), column("bad", "Failed"), column("time_s", "Time"), { label: "Share", class: "share" },
        column("on_p_s", "On P"), column("run_p50_s", "Run"), column("run_p99_s", "p99"), column("wait_p50_s", "Wait"), column("wait_p99_s", "p99")],
      rows.map((each) => {
        const bar = h("i", { class: "share-bar" });
        bar.style.width = `${Math.max(1, (100 * each.time_s) / most)}%`;
        bar.style.background = colour(each.function);
        return cells(each.function, "", fnCell(each.function, "/jobs", {}), count(jobs(each)),
          bad(each) ? h("span", { class: "bad" }, count(bad(each))) : "0", span(each.time_s), bar, span(each.on_p_s),
          span(each.run_p50_s), span(each.run_p99_s), span(each.wait_p50_s), span(each.wait_p99_s));
      }),
      "No job has ended yet.");
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
    this.filters.replaceChildren(this.search(params, "part of a key"));
    const wanted = params.function ?? "";
    this.rows([{ label: "Key", class: "mono" }, { label: "Value", class: "mono" }, { label: "From" }, { label: "Meaning", class: "wide" }],
      told.settings.filter((each) => each.key.includes(wanted)).map((each) => cells(each.key, "",
        each.default ? each.key : h("b", {}, each.key), each.value,
        each.default ? h("span", { class: "dim" }, "default") : `${each.layer} ${each.where}`, each.doc)),
      "No key is like that.");
  }
}

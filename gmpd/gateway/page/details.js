// One job, and one G: where it is and why, its story, its stack or its output.

import { get, post } from "./api.js";
import { bytes, copyButton, h, moment, morph, say, span } from "./dom.js";
import { isHost, placeName } from "./places.js";
import { factList, link, pill, square, whyBox } from "./table.js";

const TEXT_SHOWN = 20000;

function back(path, name) {
  return h("a", { class: "back", href: `#${path}` }, `← ${name}`);
}

/** Something that is looked at again and again, and may end meanwhile. */
class Detail {
  constructor(path, name) {
    this.path = path;
    this.name = name;
    this.el = h("section", { class: "panel detail-view" });
  }

  async load(params) {
    if (this.ended === params.id) return; // nothing more becomes of it
    this.ended = null;
    const key = this.key = {};
    try {
      const told = await this.fetch(params);
      if (this.key !== key) return;
      this.last = this.parts(told, params);
      this.of = params.id;
      morph(this.el, back(this.path, this.name), this.last);
    } catch (error) {
      if (this.key !== key) return;
      if (error.status === 404) this.ended = params.id;
      const known = this.of === params.id ? this.last : [];
      morph(this.el, back(this.path, this.name), h("p", { role: "status", class: "gone" }, this.words(error)), known);
    }
  }

  words(error) {
    return error.message;
  }
}

export class JobView extends Detail {
  constructor() {
    super("/jobs", "Jobs");
  }

  words(error) {
    return error.status === 404 ? "The daemon does not know this job: a volatile one is known until it ends, a durable one until its `keep` is over. Failures has what failed." : error.message;
  }

  async fetch({ id }) {
    const told = await get(`/jobs/${id}`);
    const { job } = told;
    const [result, log, allow] = await Promise.all([
      job.durable && job.ended ? get(`/jobs/${id}/result`).catch((error) => ({ refused: error.message })) : null,
      get(`/jobs/${id}/log`).catch(() => null), allowed(),
    ]);
    return { ...told, result, log, allow };
  }

  parts({ job, story, why, result, log, allow }) {
    return [
      h("div", { class: "table-head" }, h("h2", {}, square(job.function), job.function), pill(job.state), h("span", { class: "grow" }),
        ...actions(job, allow)),
      whyBox(why),
      factList([
        ["job", h("span", { class: "mono" }, job.id)], ["client", job.client], ["kind", job.durable ? "durable" : "volatile"],
        ["accepted", moment(job.created)], ["ended", job.ended && moment(job.ended)], ["attempt", job.attempt],
        ["where", where(job)],
        ["unique", job.unique],
        ["progress", job.progress && `${job.progress.done} of ${job.progress.total ?? "?"} ${job.progress.note}`],
      ]),
      ...value(result),
      story.length ? h("h3", {}, "Attempts") : "",
      h("ol", { class: "story" }, story.map(attempt)),
      log?.text ? h("h3", {}, "Output", log.left_out ? h("span", { class: "dim" }, ` (${bytes(log.left_out)} left out)`) : "") : "",
      log?.text ? h("pre", { tabindex: 0, "aria-label": "output" }, log.text) : "",
    ];
  }
}

/** Its P, which leads to its Gs; those of a host are on another machine. */
function where({ p, pid, function: name }) {
  if (p === null) return pid && `a worker of its own · pid ${pid}`;
  if (isHost(p)) return placeName(p);
  return h("a", { href: link("/gs", { p, function: name }) }, `P${p} · pid ${pid}`);
}

function attempt(each) {
  const where = [each.p === null ? "" : placeName(each.p), each.pid && `pid ${each.pid}`, each.began && moment(each.began), `ran ${span(each.ran_s)}`];
  return h("li", { data: { key: String(each.n) } },
    h("div", {}, h("b", {}, `#${each.n}`), pill(each.outcome), h("span", { class: "dim" }, where.filter(Boolean).join(" · ")),
      each.traceback ? copyButton(each.traceback) : ""),
    each.text ? h("p", {}, each.text) : "",
    each.traceback ? h("pre", { class: "traceback", tabindex: 0, "aria-label": "traceback" }, each.traceback) : "");
}

function value(result) {
  if (!result) return [];
  if (result.refused) return [h("p", { class: "dim" }, result.refused)];
  if (result.error) return [];
  const text = JSON.stringify(result.value, null, 2) ?? "null";
  return [h("h3", {}, "Value ", copyButton(text)), h("pre", { class: "value", tabindex: 0, "aria-label": "value" }, text.slice(0, TEXT_SHOWN))];
}

let allowing;
function allowed() {
  allowing ??= get("/config").then(({ settings }) => JSON.parse(settings.find((each) => each.key === "http.allow")?.value ?? "[]"));
  return allowing.catch(() => ((allowing = undefined), []));
}

function actions(job, allow) {
  const act = (word, label, sure) => {
    const button = h("button", { type: "button", class: "quiet", data: { own: `${word} ${job.id}` } }, label);
    button.addEventListener("click", async () => {
      if (button.dataset.sure !== "yes") {
        button.dataset.sure = "yes";
        say(button, sure);
        setTimeout(() => ((button.dataset.sure = ""), say(button, label)), 4000);
        return;
      }
      const told = await post(`/jobs/${job.id}/${word}`).catch((error) => ({ why: error.message }));
      say(button, told.why || "Done");
    });
    return button;
  };
  const open = ["queued", "running", "blocked"].includes(job.state);
  return [
    allow.includes("cancel") && open ? act("cancel", "Cancel", "Cancel it: sure?") : "",
    allow.includes("retry") && job.durable && !open && job.state !== "done" ? act("retry", "Run again", "Run it again: sure?") : "",
  ];
}

const EVENTS = {
  step: (e) => (e.reason === "ended" ? "ran, and ended" : `ran, then waited: ${e.reason}`), wake: () => "became ready",
  handoff: (e) => `its P passed to another M: ${e.reason}`, back: () => "continued with P", failed: () => "failed",
};

export class GView extends Detail {
  constructor() {
    super("/gs", "Gs");
  }

  fetch({ id, epoch }) {
    const [p, g] = id.split(".");
    return get(`/ps/${p}/gs/${g}`, { epoch: epoch ?? (this.of === id ? this.epoch : "") });
  }

  parts(told) {
    this.epoch = told.epoch;
    const { g } = told;
    if (!told.answered) {
      return [h("div", { class: "table-head" }, h("h2", {}, `G ${told.id} of P${told.p}`)),
        whyBox({ code: "deaf_p", sentence: `${told.silence}.`, hint: "its stack is there as soon as its worker answers; `gmpd stacks` waits longer" })];
    }
    const other = g.why.facts.g;
    return [
      h("div", { class: "table-head" }, h("h2", {}, square(g.function), g.function), pill(g.state), h("span", { class: "grow" }), copyButton(told.stack, "Copy the stack")),
      whyBox(g.why),
      factList([
        ["G", h("span", { class: "mono" }, g.id)],
        ["kind", g.job ? "a job's own" : told.job ? "a child, or a task, of a job" : "a task of the worker"],
        ["job", told.job && h("a", { class: "mono", href: `#/jobs/${told.job}` }, told.job)],
        ["P", h("a", { href: link("/gs", { p: told.p }) }, `P${told.p} · pid ${told.pid}`)],
        ["M", g.m === null ? "" : `M${g.m}`], ["waits for", g.reason],
        ["that G", other === undefined ? "" : h("a", { class: "mono", href: `#/gs/${told.p}.${other}` }, other)],
        ["since", g.since_s === null ? "" : `${span(g.since_s)} ago`],
      ]),
      h("h3", {}, "Stack"), h("pre", { class: "stack", tabindex: 0, "aria-label": "stack" }, told.stack),
      h("h3", {}, "Story"),
      told.story.length ? "" : h("p", { class: "dim" }, g.job ? "No event of it is kept." : "gmpd trace has the last events of children and tasks."),
      h("ol", { class: "g-story" }, [...told.story].reverse().map((each) => h("li", { class: each.kind },
        h("span", { class: "mono dim" }, `${span(each.ago_s)} ago`), h("span", {}, EVENTS[each.kind](each)),
        h("span", { class: "mono dim" }, each.took_s ? span(each.took_s) : "")))),
    ];
  }
}

// The frame: header, routes (the URL is the state), keys, the stream, and the end of a daemon.

import { Stream, get, setToken } from "./api.js";
import { copyButton, h, say, span, toggle } from "./dom.js";
import { Past } from "./past.js";
import { Picture } from "./picture.js";
import { learnHosts } from "./places.js";
import { GView, JobView } from "./details.js";
import { TaskStream } from "./stream.js";
import { ClientsView, ConfigView, FailuresView, FunctionsView, GsView, JobsView, WarningsView } from "./tables.js";

const VIEWS = [
  ["/", "Scheduler"], ["/jobs", "Jobs"], ["/functions", "Functions"], ["/failures", "Failures"], ["/gs", "Gs"], ["/clients", "Clients"], ["/warnings", "Warnings"], ["/config", "Config"],
];
const MAKE = {
  "/jobs": JobsView, "/functions": FunctionsView, "/failures": FailuresView, "/gs": GsView, "/clients": ClientsView,
  "/warnings": WarningsView, "/config": ConfigView,
};
/** Views of one thing: the view that leads to them, and what is its id in the path. */
const DETAILS = [["/jobs", /^\/jobs\/([0-9a-f]{32})$/, JobView], ["/gs", /^\/gs\/(\d+\.\d+)$/, GView]];
const REFRESH_MS = 2000;
const KEYS = [
  [`1 … ${VIEWS.length}`, "views"], ["Tab", "all that can be opened or pressed"], ["space", "pause, continue"], ["/", "filter"],
  ["j k", "rows"], ["Enter", "open a row"], ["← →", "squares of a queue"], ["Esc", "back"],
  ["+ − ← → 0", "zoom the task stream, once it is clicked"], ["t", "dark, light"], ["?", "this help"],
];

const main = document.getElementById("main");
const past = new Past();
const picture = new Picture();
const tasks = new TaskStream();
picture.el.append(tasks.el);
const views = {};
let shown = null, shownPath = null, frozen = false, moved = 0;

// -- the header -----------------------------------------------------------------------------------

const dot = h("i", { class: "dot" });
const link = h("span", { class: "link-text", role: "status" }, "connecting");
const version = h("span", { class: "dim mono version" });
const pause = h("button", { type: "button", class: "quiet", "aria-pressed": "false", title: "Space" }, "Pause");
const theme = h("button", { type: "button", class: "quiet", title: "t" }, "Theme");
const help = h("button", { type: "button", class: "quiet", title: "?" , "aria-label": "Keys"}, "?");
const nav = h("nav", { class: "views", "aria-label": "Views" }, VIEWS.map(([path, name]) => h("a", { href: `#${path}`, data: { path } }, name)));
document.getElementById("top").append(
  h("a", { class: "brand", href: "#/" }, h("img", { src: "/page/icon.svg", alt: "", width: 26, height: 26 }), h("b", {}, "gmpd"), version),
  nav, h("span", { class: "grow" }), h("span", { class: "link" }, dot, link), pause, theme, help);
const banner = h("div", { class: "banner", hidden: true, role: "alert" });
main.before(banner);
const lost = h("span");
document.getElementById("foot").append(
  h("a", { href: "/metrics" }, "metrics"), h("a", { href: "/api/v1/openapi.json" }, "API"),
  copyButton(() => JSON.stringify(past.last?.shown ?? null, null, 2), "Copy the snapshot as JSON"), lost);

function setState(word, why) {
  const words = { live: "live", gone: "no daemon", away: "no gateway", token: "locked" };
  document.body.dataset.link = word;
  say(link, frozen && word === "live" ? "paused" : words[word]);
  banner.hidden = word === "live";
  if (banner.hidden || banner.dataset.why === word + why) return;
  banner.dataset.why = word + why;
  banner.replaceChildren();
  if (word === "token") banner.append(tokenForm(why));
  else {
    banner.append(h("b", {}, word === "gone" ? "The daemon does not answer." : "The gateway does not answer."),
      ` What you see is ${past.last ? "as it was" : "not there yet"}. It comes back by itself. `, h("span", { class: "dim" }, why),
      h("span", {}, " Start one: "), h("code", {}, "gmpd up"));
  }
}

function tokenForm(why) {
  const input = h("input", { type: "password", placeholder: "token", "aria-label": "token", autocomplete: "off" });
  const form = h("form", { class: "token" }, h("span", {}, `${why} `), input, h("button", { class: "quiet" }, "Unlock"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(input.value);
    stream.again();
  });
  return form;
}

// -- routes ---------------------------------------------------------------------------------------

function place() {
  const [path, query] = location.hash.slice(1).split("?");
  return { path: path || "/", params: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

function go() {
  const { path, params } = place();
  const detail = DETAILS.find(([, pattern]) => pattern.test(path));
  const base = detail ? detail[0] : path;
  frozen = params.paused === "1";
  pause.setAttribute("aria-pressed", String(frozen));
  say(pause, frozen ? "Continue" : "Pause");
  for (const each of nav.children) {
    const here = each.dataset.path === base;
    toggle(each, "on", here);
    here ? each.setAttribute("aria-current", "page") : each.removeAttribute("aria-current");
  }
  const Made = detail ? detail[2] : MAKE[path];
  shown = Made ? (views[Made.name] ??= new Made()) : picture;
  if (main.firstElementChild !== shown.el) main.replaceChildren(shown.el);
  const before = shownPath;
  shownPath = path;
  document.title = base === "/" ? "gmpd" : `${VIEWS.find(([each]) => each === base)?.[1] ?? "gmpd"} · gmpd`;
  document.body.dataset.view = base;
  tasks.set(shown === picture, frozen, params);
  const loaded = shown === picture ? past.last && picture.show(past) : shown.load(detail ? { ...clean(params), id: detail[1].exec(path)[1] } : clean(params));
  if (before !== null && before !== path) arrive(before, loaded);
  return loaded;
}

/** Another view: its beginning, or the row that led away from it. Keys go on from there. */
async function arrive(before, loaded) {
  scrollTo(0, 0);
  nav.querySelector(".on")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  await loaded;
  if (document.activeElement !== document.body) return;
  const from = main.querySelector(`tr a.open[href="#${CSS.escape(before)}"]`);
  (from ?? main).focus({ preventScroll: !from });
}

function clean({ paused, ...rest }) {
  return rest;
}

addEventListener("hashchange", () => (moved++, go()));
setInterval(() => {
  if (shown !== picture && !frozen && !document.hidden && document.body.dataset.link === "live" && !busy()) go();
}, REFRESH_MS);

/** Whether the reader marks a text: a redraw must not undo that. */
function busy() {
  return !getSelection().isCollapsed;
}

/** How many warnings there are, beside their view. */
async function countWarnings() {
  if (document.hidden || document.body.dataset.link !== "live") return;
  const told = await get("/warnings").catch(() => null);
  const tab = nav.querySelector('[data-path="/warnings"]');
  tab.querySelector("sup")?.remove();
  if (told?.warnings.length) tab.append(h("sup", {}, String(told.warnings.length)));
}

setInterval(countWarnings, 10000);

// -- keys and buttons -------------------------------------------------------------------------------

function setFrozen(on) {
  const { path, params } = place();
  const query = new URLSearchParams(on ? { ...params, paused: "1" } : clean(params));
  history.replaceState(null, "", `#${path}${query.size ? `?${query}` : ""}`);
  go();
  say(link, on ? "paused" : "live");
}

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  localStorage.setItem("gmpd-theme", name ?? "");
}

function otherTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  setTheme(dark === "dark" ? "light" : "dark");
}

setTheme(localStorage.getItem("gmpd-theme") || undefined);
pause.addEventListener("click", () => setFrozen(!frozen));
theme.addEventListener("click", otherTheme);
help.addEventListener("click", showHelp);

function showHelp() {
  const dialog = document.getElementById("help");
  if (!dialog.children.length) {
    const close = h("button", { type: "button", class: "quiet" }, "Close");
    close.addEventListener("click", () => dialog.close());
    dialog.append(h("h2", {}, "Keys"), h("dl", { class: "facts" }, KEYS.flatMap(([k, v]) => [h("dt", {}, h("kbd", {}, k)), h("dd", {}, v)])),
      h("h2", {}, "What you see"),
      h("p", {}, "A ", h("b", {}, "G"), " is a call that runs or waits: a square, coloured by its function. A ", h("b", {}, "P"),
        " is the right to run, one for each core. An ", h("b", {}, "M"), " is a thread. One M holds a P and runs its Gs; when a G blocks, P passes to another M. A ", h("b", {}, "host"), " of a cluster is one P with the cores of another machine."), close);
  }
  dialog.showModal();
}

function select(step) {
  const rows = [...main.querySelectorAll("tbody tr[tabindex]")];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement?.closest("tr"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
  (next.querySelector("a.open") ?? next).focus();
  next.scrollIntoView({ block: "nearest" });
}

/** From one thing to the view that leads to it; by the way that was taken, if one was. */
function leave() {
  const { path } = place();
  const detail = DETAILS.find(([, pattern]) => pattern.test(path));
  if (moved > 0 && (detail || path !== "/")) history.back();
  else location.hash = detail ? detail[0] : "/";
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
  if (event.target.tagName === "INPUT") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const view = VIEWS[Number(event.key) - 1];
  if (view) location.hash = `#${view[0]}`;
  else if (event.key === " " && !["BUTTON", "SUMMARY"].includes(event.target.tagName)) setFrozen(!frozen);
  else if (event.key === "/") main.querySelector(".search")?.focus();
  else if (event.key === "j") select(1);
  else if (event.key === "k") select(-1);
  else if (event.key === "Escape") leave();
  else if (event.key === "t") otherTheme();
  else if (event.key === "?") showHelp();
  else return;
  event.preventDefault();
});

// -- the stream -------------------------------------------------------------------------------------

const stream = new Stream({
  state: setState,
  lost: (n) => say(lost, `${n} events were skipped: this tab was slow`),
  snapshot(data) {
    past.add(data);
    document.body.dataset.seq = data.seq;
    const s = data.snapshot;
    learnHosts(s.cluster.hosts);
    say(version, `${s.version} · up ${span(s.uptime_s)}`);
    if (shown === picture && !frozen) picture.show(past);
  },
});
go();

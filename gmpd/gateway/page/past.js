// The last minute of snapshots, and what follows from two of them: rates, shares, moves.

import { hostName, placeFirst, placeName } from "./places.js";

const KEPT_MS = 61000;

export class Past {
  constructor() {
    this.all = [];
  }

  add(shown) {
    const at = performance.now();
    const before = this.last;
    // Another daemon counts from zero.
    if (before && before.shown.snapshot.epoch !== shown.snapshot.epoch) this.all = [];
    this.all.push({ at, shown });
    while (this.all.length > 2 && at - this.all[0].at > KEPT_MS) this.all.shift();
  }

  get last() {
    return this.all.at(-1);
  }

  /** The snapshot of about `ms` ago. */
  since(ms) {
    const from = (this.last?.at ?? 0) - ms;
    return this.all.find((each) => each.at >= from) ?? this.all[0];
  }

  /** Per second over the last `ms`, of a number that only grows. */
  rate(read, ms = 4000) {
    const a = this.since(ms), b = this.last;
    if (!a || a === b) return 0;
    const grown = read(b.shown.snapshot) - read(a.shown.snapshot);
    return Math.max(0, grown / ((b.at - a.at) / 1000));
  }

  /** Rates over the last minute, a point per second. */
  course(read) {
    const points = [];
    let from = this.all[0];
    for (const each of this.all) {
      const s = (each.at - from.at) / 1000;
      if (s < 1) continue;
      points.push(Math.max(0, (read(each.shown.snapshot) - read(from.shown.snapshot)) / s));
      from = each;
    }
    return points;
  }

  /** A percentile of a histogram over the last `ms`, in seconds; null without values. */
  percentile(name, share, ms = 10000) {
    const now = this.last?.shown.snapshot.hist[name]?.buckets ?? [];
    const then = this.since(ms)?.shown.snapshot.hist[name]?.buckets ?? [];
    const grown = now.map((n, k) => n - (then[k] ?? 0));
    const total = grown.reduce((a, b) => a + b, 0);
    if (!total) return null;
    let left = total * share;
    const k = grown.findIndex((n) => (left -= n) <= 0);
    return 2 ** k / 1e9 * 0.75; // the middle of its bucket
  }
}

export function finished(status) {
  return Object.values(status.jobs.finished).reduce((a, b) => a + b, 0);
}

const BAD = ["error", "timeout", "lost"];

export function failed(status) {
  return BAD.reduce((n, how) => n + (status.jobs.finished[how] ?? 0), 0);
}

const HANDOFF = {
  blocked: "a call blocked", hog: "a function computes for long", known: "it called something that blocks",
  learned: "its function was known to block",
};

/** What happened between two snapshots, in words: {kind, p, from, n, text}. */
export function moves(before, now) {
  const found = [];
  const old = new Map(before.ps.map((p) => [p.p, p]));
  const thieves = [], victims = [];
  for (const p of now.ps) {
    const was = old.get(p.p);
    if (!was) continue;
    if (p.pid && was.pid && p.pid !== was.pid)
      found.push({ kind: "worker", p: p.p, n: 1, text: `P${p.p} has another worker (pid ${p.pid})` });
    for (const [why, n] of Object.entries(p.handoffs)) {
      const more = n - (was.handoffs[why] ?? 0);
      if (more > 0) found.push({
        kind: "handoff", p: p.p, n: more, why,
        text: `P${p.p} passed to another M${more > 1 ? `, ${more} times` : ""}: ${HANDOFF[why] ?? why}`,
      });
    }
    const took = p.stolen - was.stolen + Math.max(0, (p.children.in ?? 0) - (was.children.in ?? 0));
    const gave = p.lost - was.lost + Math.max(0, (p.children.out ?? 0) - (was.children.out ?? 0));
    if (took > 0) thieves.push({ p: p.p, n: took });
    if (gave > 0) victims.push({ p: p.p, n: gave });
    const late = p.overruns - was.overruns;
    if (late > 0) found.push({ kind: "overrun", p: p.p, n: late, text: `P${p.p}: a coroutine held the loop${late > 1 ? `, ${late} times` : ""}` });
  }
  found.push(...hostMoves(before.cluster.hosts, now.cluster.hosts, thieves, victims));
  for (const thief of thieves) {
    const victim = victims.find((each) => each.p !== thief.p && each.n > 0);
    const n = victim ? Math.min(thief.n, victim.n) : thief.n;
    if (victim) victim.n -= n;
    found.push({
      kind: "steal", p: thief.p, from: victim?.p, n,
      text: `${placeFirst(thief.p)} stole ${n} ${n === 1 ? "G" : "Gs"}${victim ? ` from ${placeName(victim.p)}` : ""}`,
    });
  }
  const bad = failed(now) - failed(before);
  if (bad > 0) found.push({ kind: "failure", n: bad, text: `${bad} ${bad === 1 ? "job" : "jobs"} failed` });
  return found;
}

const SERVES = ["idle", "running"];

/** Hosts that came, left or were lost; and those that stole jobs, or from which some were stolen. */
function hostMoves(before, now, thieves, victims) {
  const found = [], old = new Map(before.map((each) => [each.name, each]));
  for (const host of now) {
    const was = old.get(host.name), p = host.p ?? was?.p, name = `Host ${hostName(host.name)}`;
    old.delete(host.name);
    const say = (kind, text) => found.push({ kind, p, n: 1, text: `${name} ${text}` });
    if (host.losses > (was?.losses ?? 0)) say("failure", `was lost${host.lost_jobs ? `, with ${jobs(host.lost_jobs)} that had begun` : ""}`);
    if (SERVES.includes(host.state) && !SERVES.includes(was?.state)) say("worker", `takes work on ${host.cores} ${host.cores === 1 ? "core" : "cores"}`);
    if (host.state === "leaving" && was && was.state !== "leaving") say("worker", "leaves: it gets no more jobs");
    if (host.state === "refused" && was && was.state !== "refused") say("failure", "takes no work");
    if (!was || host.p === null || was.p !== host.p) continue;
    if (host.stolen > was.stolen) thieves.push({ p: host.p, n: host.stolen - was.stolen });
    if (host.lost > was.lost) victims.push({ p: host.p, n: host.lost - was.lost });
  }
  for (const gone of old.values()) {
    if (gone.state !== "lost") found.push({ kind: "worker", n: 1, text: `Host ${hostName(gone.name)} has left` });
  }
  return found;
}

function jobs(n) {
  return `${n} ${n === 1 ? "job" : "jobs"}`;
}

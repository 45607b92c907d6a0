// What the task stream draws: a track for each P, in parts as they came, and one for isolated jobs. The
// bars of a host are shares of its cores. No drawing, no requests.

import { count, short, span as words } from "./dom.js";
import { isHost, placeFirst, placeName } from "./places.js";

export const WHAT = { ran: 0, step: 1, async: 2, beside: 3 };
const LANES_MAX = 6;
const STATES = { deaf: "deaf", dead: "no worker", starting: "its worker starts", draining: "it drains" };

class Track {
  constructor(p) {
    this.p = p;
    this.parts = [];
    this.running = [];
    this.handoffs = [];
    this.until = 0;
    this.silence = "";
    this.lanesUsed = 0;
    /** Until when each lane is taken; and lanes of jobs that run. */
    this.ends = new Array(LANES_MAX + 1).fill(-Infinity);
    this.holds = new Map();
  }

  /** A lane from `least` on that is free from `began` on; -1: none. */
  lane(began, ended, least) {
    for (let lane = least; lane <= LANES_MAX; lane++) {
      if (this.ends[lane] > began) continue;
      this.ends[lane] = ended;
      return lane;
    }
    return -1;
  }

  /** The lane of a job that has ended: where it was shown while it ran. */
  settle(key, began, ended, least) {
    const held = this.holds.get(key);
    if (held === undefined) return this.lane(began, ended, least);
    this.holds.delete(key);
    this.ends[held] = ended;
    return held;
  }

  /** Lanes of the jobs that run now; those of others are free. */
  hold(running, until, least) {
    const now = new Set(running.map((each) => each.key));
    for (const [key, lane] of this.holds) {
      if (now.has(key)) continue;
      this.ends[lane] = until;
      this.holds.delete(key);
    }
    for (const each of running) {
      if (each.lane === 0) continue;
      let lane = this.holds.get(each.key);
      if (lane === undefined && (lane = this.lane(each.began, Infinity, least)) >= least) this.holds.set(each.key, lane);
      each.lane = lane;
    }
    this.running = running.filter((each) => each.lane >= 0);
  }
}

/** Bars as columns, and `idle` as pairs of times. */
function part(since, until, bars, places) {
  const n = bars.length;
  const made = {
    n, from: since, to: until, at: new Float64Array(n), ran: new Float64Array(n), name: new Int32Array(n), what: new Uint8Array(n),
    jobs: new Int32Array(n), busy: new Float64Array(n), wait: new Float64Array(n), lane: new Int8Array(n).fill(-1),
    low: new Float32Array(n), high: new Float32Array(n).fill(1), bad: new Array(n), job: new Map(), why: new Map(), idle: [],
  };
  bars.forEach(([what, at, ran, name, jobs, busy, wait], i) => {
    made.what[i] = what;
    made.at[i] = since + at;
    made.ran[i] = ran;
    made.name[i] = places[name];
    made.jobs[i] = jobs;
    made.busy[i] = busy;
    made.wait[i] = wait;
    made.from = Math.min(made.from, since + at);
    made.to = Math.max(made.to, since + at + ran);
  });
  return made;
}

/** Several functions in one span lie above each other, each as high as its share of the time. */
function stack(made) {
  for (let i = 0; i < made.n;) {
    let end = i + 1;
    while (end < made.n && made.at[end] === made.at[i] && made.ran[end] === made.ran[i]) end++;
    let low = 1;
    const merged = end - i > 1 || made.jobs[i] > 1;
    for (let k = i; merged && k < end; k++) {
      const share = made.busy[k] && made.ran[k] ? made.busy[k] / made.ran[k] : 0.6 / (end - i);
      const tall = Math.min(1 / (end - i), Math.max(0.18 / (end - i), share));
      made.high[k] = low;
      made.low[k] = Math.max(0, low - (end - i > 1 ? Math.min(low, Math.max(0.12, share)) : tall));
      low = made.low[k];
    }
    i = end;
  }
}

/** The same of a host: shares of its cores, which are exact together. */
function stackShares(made) {
  for (let i = 0, low = 1; i < made.n; i++) {
    if (i && made.at[i] !== made.at[i - 1]) low = 1;
    made.high[i] = low;
    made.low[i] = low = Math.max(0, low - Math.max(0.05, made.busy[i] / Math.max(1, made.ran[i])));
  }
}

export class Tracks {
  constructor() {
    this.clear();
  }

  clear() {
    this.all = new Map();
    this.alone = new Track(-1);
    this.seenAlone = new Map();
    this.steals = [];
    this.workers = [];
    this.names = [];
    this.places = new Map();
    this.missing = "";
  }

  #place(name) {
    let place = this.places.get(name);
    if (place === undefined) {
      this.places.set(name, place = this.names.length);
      this.names.push(name);
    }
    return place;
  }

  add(chunk) {
    const since = chunk.since_us, places = chunk.names.map((name) => this.#place(name));
    const here = new Set();
    for (const told of chunk.tracks) {
      here.add(told.p);
      let track = this.all.get(told.p);
      if (!track) this.all.set(told.p, track = new Track(told.p));
      this.#track(track, told, since, places);
    }
    for (const p of this.all.keys()) if (!here.has(p)) this.all.delete(p);
    this.missing = chunk.tracks.find((each) => each.missing)?.missing ?? "";
    for (const [at, victim, thief, jobs] of chunk.steals) this.steals.push({ at: since + at, victim, thief, jobs });
    for (const [at, p, epoch, died] of chunk.workers) this.workers.push({ at: since + at, p, epoch, died });
    this.#isolated(chunk, places);
  }

  #track(track, told, since, places) {
    track.silence = "";
    if (!told.answered) {
      const asked = told.silent_s >= 0.3 || STATES[told.state];
      if (asked) track.silence = [STATES[told.state], told.silent_s >= 0.3 && `no answer for ${words(told.silent_s)}`].filter(Boolean).join(", ");
      if (told.state === "dead") track.running = [];
      return;
    }
    track.until = Math.max(track.until, since + told.until);
    const made = part(since, since + told.until, told.bars, places);
    for (const [row, id, durable] of told.known) made.job.set(row, { id, durable });
    for (const [row, how] of told.failed) made.bad[row] = how;
    for (const [at, ran] of told.idle) {
      made.idle.push(since + at, since + at + ran);
      made.from = Math.min(made.from, since + at);
    }
    made.told = [since, since + told.until, told.jobs];
    for (let i = 0; i < made.n; i++) {
      const many = made.jobs[i] > 1, what = made.what[i];
      const below = what === WHAT.beside || (what === WHAT.async && !many);
      const key = made.job.get(i)?.id ?? Math.round(made.at[i] / 10);
      made.lane[i] = below ? track.settle(key, made.at[i], made.at[i] + made.ran[i], 1) : 0;
    }
    if (isHost(told.p)) stackShares(made);
    else stack(made);
    track.parts.push(made);
    const running = told.running.map((each) => ({
      ...each, began: since + each.began, name: places[each.name], lane: each.what === WHAT.ran ? 0 : -1,
      key: each.job || Math.round((since + each.began) / 10),
    }));
    track.hold(running, track.until, 1);
    for (const [at, why, name] of told.handoffs) track.handoffs.push({ at: since + at, why, name: name < 0 ? -1 : places[name] });
  }

  #isolated(chunk, places) {
    const since = chunk.since_us, track = this.alone, running = [];
    track.until = chunk.until_us;
    for (const each of chunk.isolated) {
      const began = since + each.began, key = each.job || each.worker;
      if (each.ran_us < 0) {
        running.push({ ...each, what: WHAT.ran, began, name: places[each.name], key, lane: -1 });
        continue;
      }
      if (this.seenAlone.has(key)) continue; // it is told again while it is in the window
      this.seenAlone.set(key, began + each.ran_us);
      const made = part(since, chunk.until_us, [[WHAT.ran, each.began, each.ran_us, each.name, 1, each.ran_us, each.wait_us]], places);
      made.job.set(0, { id: each.job, durable: each.durable });
      made.lane[0] = track.settle(key, began, began + each.ran_us, 0);
      track.parts.push(made);
    }
    track.hold(running, chunk.until_us, 0);
  }

  /** Drop what ended before. */
  forget(before) {
    for (const track of [...this.all.values(), this.alone]) {
      track.parts = track.parts.filter((each) => each.to >= before);
      track.handoffs = track.handoffs.filter((each) => each.at >= before);
    }
    this.steals = this.steals.filter((each) => each.at >= before);
    this.workers = this.workers.filter((each) => each.at >= before);
    for (const [key, ended] of this.seenAlone) if (ended < before) this.seenAlone.delete(key);
  }

  /** Where each row is. Many Ps have lower rows. */
  layout() {
    const n = this.all.size, tall = n <= 8 ? 24 : n <= 24 ? 15 : 10, gap = n <= 8 ? 13 : n <= 24 ? 6 : 3;
    const thin = n <= 8 ? 5 : 3, most = n <= 8 ? LANES_MAX : n <= 24 ? 3 : 0;
    const rows = [];
    let top = 4;
    for (const p of [...this.all.keys()].sort((a, b) => a - b)) {
      const track = this.all.get(p), lanes = Math.min(most, lanesOf(track));
      const bottom = top + tall + (lanes ? 3 + lanes * (thin + 2) : 0);
      rows.push({ p, track, top, tall, thin, lanes, bottom, silent: Boolean(track.silence), alone: false });
      top = bottom + gap;
    }
    if (this.alone.parts.length || this.alone.running.length) {
      const lanes = lanesOf(this.alone), wide = 11;
      const bottom = top + (lanes + 1) * (wide + 2);
      rows.push({ p: -1, track: this.alone, top, tall: wide, thin: wide, lanes, bottom, silent: false, alone: true });
    }
    return rows;
  }

  /** The bar of a lane at a time, or near it: the shortest one. */
  find(row, lane, at, near, y) {
    let best = null;
    const offer = (from, to, make) => {
      if (from > at + near || to < at - near) return;
      const off = Math.max(0, from - at, at - to), size = to - from + off * 20;
      if (!best || size < best.size) best = { size, make };
    };
    for (const each of row.track.parts) {
      if (each.to < at - near || each.from > at + near) continue;
      for (let i = 0; i < each.n; i++) {
        if (each.lane[i] !== lane || each.at[i] > at + near || each.at[i] + each.ran[i] < at - near) continue;
        if (lane === 0 && !row.alone && each.high[i] - each.low[i] < 1) {
          const share = (y - row.top) / row.tall;
          const next = i + 1 < each.n && each.at[i + 1] === each.at[i] && each.ran[i + 1] === each.ran[i];
          if (share > each.high[i] || (share < each.low[i] && next)) continue;
        }
        offer(each.at[i], each.at[i] + each.ran[i], () => this.#bar(row, lane, each, i));
      }
    }
    for (const each of row.track.running) {
      if (each.lane !== lane) continue;
      offer(each.began, row.track.until, () => ({
        id: each.key, row, lane, at: each.began, to: Math.max(each.began, row.track.until), name: this.names[each.name], what: each.what,
        jobs: 1, busy: 0, wait: each.wait_us, job: each.job, opens: Boolean(each.job), runs: true,
      }));
    }
    return best?.make() ?? null;
  }

  #bar(row, lane, made, i) {
    const known = made.job.get(i), at = made.at[i];
    const why = made.what[i] === WHAT.beside ? row.track.handoffs.find((each) => Math.abs(each.at - at) < 2000)?.why : "";
    return {
      id: `${i} ${at}`, row, lane, at, to: at + made.ran[i], name: this.names[made.name[i]], what: made.what[i], jobs: made.jobs[i],
      busy: made.busy[i], wait: made.wait[i], bad: made.bad[i], job: known?.id ?? "", opens: Boolean(known?.durable), why,
    };
  }

  /** A hand-off, a steal, or a worker's begin or end there. */
  mark(row, at, near, above) {
    if (!above || row.alone) return null;
    const here = (each) => Math.abs(each.at - at) <= near;
    const steal = this.steals.find((each) => here(each) && (each.thief === row.p || each.victim === row.p));
    if (steal) return { at: steal.at, text: `${placeFirst(steal.thief)} stole ${count(steal.jobs)} ${steal.jobs === 1 ? "job" : "jobs"} from ${placeName(steal.victim)}` };
    const worker = this.workers.find((each) => here(each) && each.p === row.p);
    if (worker) return { at: worker.at, text: workerText(row.p, worker) };
    const moved = row.track.handoffs.find(here);
    return moved ? { at: moved.at, text: `P${row.p} went to another M: ${moved.name < 0 ? "a G" : short(this.names[moved.name])} ${moved.why === "hog" ? "computed for long" : moved.why === "native" ? "computes without the GIL" : "blocked"}` } : null;
  }

  /** Time on P by function, the most first. */
  busiest(from, to) {
    const times = new Map();
    for (const track of [...this.all.values(), this.alone]) {
      for (const each of track.parts) {
        if (each.to < from || each.from > to) continue;
        for (let i = 0; i < each.n; i++) {
          if (each.at[i] + each.ran[i] < from || each.at[i] > to) continue;
          const us = each.what[i] === WHAT.async || each.what[i] === WHAT.beside ? 1 : each.jobs[i] > 1 || isHost(track.p) ? each.busy[i] : each.ran[i];
          times.set(each.name[i], (times.get(each.name[i]) ?? 0) + us + 1);
        }
      }
      for (const each of track.running) times.set(each.name, (times.get(each.name) ?? 0) + 1);
    }
    return [...times].sort((a, b) => b[1] - a[1]).map(([place]) => this.names[place]);
  }

  summary(from, to) {
    const lines = [];
    let jobs = 0;
    for (const track of [...this.all.values()].sort((a, b) => a.p - b.p)) {
      let ended = 0, busy = 0;
      for (const each of track.parts) {
        if (each.to < from || each.from > to) continue;
        const [a, b, n] = each.told;
        ended += n * Math.max(0, Math.min(1, (Math.min(b, to) - Math.max(a, from)) / Math.max(1, b - a)));
        for (let i = 0; i < each.n; i++) {
          if (each.lane[i] !== 0) continue;
          const on = Math.min(to, each.at[i] + each.ran[i]) - Math.max(from, each.at[i]);
          const merged = isHost(track.p) || (each.jobs[i] > 1 && each.busy[i]);
          if (on > 0) busy += on * (merged ? Math.min(1, each.busy[i] / each.ran[i]) : 1);
        }
      }
      for (const each of track.running) if (each.lane === 0) busy += Math.max(0, Math.min(to, track.until) - Math.max(from, each.began));
      jobs += ended = Math.round(ended);
      const share = Math.min(100, Math.round((100 * busy) / (to - from)));
      track.busyText = `${share} %`;
      const runs = track.running.length ? `, ${track.running.length} have begun` : "";
      const name = placeFirst(track.p);
      lines.push(track.silence ? `${name}: ${track.silence}` : `${name}: ${count(ended)} jobs, ${share} % busy${runs}`);
    }
    const alone = this.alone.parts.length + this.alone.running.length;
    if (alone) lines.push(`${count(alone)} isolated jobs`);
    const inside = (each) => each.at >= from && each.at <= to;
    return {
      lines, jobs, steals: this.steals.filter(inside).length,
      handoffs: [...this.all.values()].reduce((n, track) => n + track.handoffs.filter(inside).length, 0),
    };
  }
}

function workerText(p, { died, epoch }) {
  if (isHost(p)) return `${placeFirst(p)} ${died ? "was lost, or has left" : "takes work"}`;
  return died ? `the worker of P${p} died` : `P${p} has a worker (epoch ${epoch})`;
}

/** The highest lane in use. */
function lanesOf(track) {
  let most = 0;
  for (const each of track.parts) most = Math.max(most, each.top ??= each.lane.reduce((a, b) => Math.max(a, b), 0));
  for (const each of track.running) most = Math.max(most, each.lane);
  return most;
}

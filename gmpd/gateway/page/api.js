// The way to the gateway: requests, and the stream of events. A token, where one is asked for, lives
// in this tab only.

const ROOT = "/api/v1";
const KEY = "gmpd-token";

const given = new URLSearchParams(location.hash.split("?")[1] ?? "").get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.hash.split("?")[0]);
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export class Refused extends Error {
  constructor(status, problem) {
    super([problem.error, problem.hint].filter(Boolean).join(". "));
    this.status = status;
  }
}

async function answer(response) {
  const body = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

export async function get(path, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== "" && v != null));
  return answer(await fetch(`${ROOT}${path}${query.size ? `?${query}` : ""}`, { headers: headers() }));
}

export async function post(path, body = {}) {
  return answer(await fetch(ROOT + path, {
    method: "POST", body: JSON.stringify(body), headers: headers({ "Content-Type": "application/json" }),
  }));
}

/**
 * Events until the end of the tab: `on.snapshot(data)`, `on.lost(n)`, `on.state(word, why)` with
 * "live", "gone", "away" or "token". It connects again by itself, and rests while the tab is hidden.
 */
export class Stream {
  constructor(on) {
    this.on = on;
    this.heard = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.start()));
    setInterval(() => this.#watch(), 1000);
    this.start();
  }

  start() {
    if (!this.aborter) this.#run(this.aborter = new AbortController());
  }

  stop() {
    this.aborter?.abort();
    this.aborter = null;
  }

  again() {
    this.stop();
    this.start();
  }

  #watch() {
    if (this.aborter && this.heard && performance.now() - this.heard > 20000) this.again();
  }

  async #run(aborter) {
    let wait = 500;
    while (!aborter.signal.aborted) {
      try {
        const response = await fetch(`${ROOT}/events`, { headers: headers(), signal: aborter.signal });
        if (!response.ok) await answer(response);
        await this.#read(response.body.getReader());
        wait = 500;
        this.on.state("away", "the gateway ended the stream");
      } catch (error) {
        if (aborter.signal.aborted) return;
        const locked = error.status === 401 || error.status === 403;
        this.on.state(locked ? "token" : "away", error.message);
        if (locked && error.status === 401) return this.stop();
      }
      await new Promise((over) => setTimeout(over, wait));
      wait = Math.min(wait * 1.6, 5000);
    }
  }

  async #read(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.heard = performance.now();
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) this.#event(part);
    }
  }

  #event(part) {
    let name = "", data = "";
    for (const line of part.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!name) return;
    const found = JSON.parse(data);
    if (name === "snapshot") {
      this.on.state("live", "");
      this.on.snapshot(found);
    } else if (name === "gone") this.on.state("gone", found.error);
    else if (name === "lost") this.on.lost(found.events);
  }
}

// Elements, and numbers as people read them. No view, no state.

/** An element with properties and children; texts are never parsed as HTML. */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (name === "class") el.className = value;
    else if (name === "data") Object.assign(el.dataset, value);
    else el.setAttribute(name, value === true ? "" : value);
  }
  el.append(...children.flat().filter((each) => each !== null && each !== undefined));
  return el;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, props = {}, ...children) {
  const el = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

/** Set a text only if it differs: a selection survives. */
export function say(el, text) {
  text = String(text);
  if (el.textContent !== text) el.textContent = text;
}

export function toggle(el, name, on) {
  if (el.classList.contains(name) !== Boolean(on)) el.classList.toggle(name, Boolean(on));
}

export function count(n) {
  if (n < 10000) return n.toLocaleString("en");
  if (n < 1e6) return `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)}k`;
  return `${(n / 1e6).toFixed(n < 1e8 ? 1 : 0)}M`;
}

export function rate(n) {
  if (!n) return "0";
  if (n < 10) return n.toFixed(n < 1 ? 2 : 1);
  return count(Math.round(n));
}

export function span(s) {
  if (s === null || s === undefined) return "–";
  if (s < 0.001) return `${(s * 1e6).toFixed(0)} µs`;
  if (s < 1) return `${(s * 1e3).toFixed(s < 0.01 ? 1 : 0)} ms`;
  if (s < 100) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000) return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}

export function ago(seconds) {
  return seconds === null ? "–" : `${span(Math.max(0, Date.now() / 1000 - seconds))} ago`;
}

export function moment(seconds) {
  return seconds === null ? "" : new Date(seconds * 1000).toLocaleString();
}

/** module:function without its module. */
export function short(name) {
  return name.slice(name.lastIndexOf(":") + 1) || name;
}

/** The colour of a function: the same everywhere, and in every session. */
const colours = new Map();
export function colour(name) {
  let found = colours.get(name);
  if (found === undefined) {
    let hash = 2166136261;
    for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
    hash = Math.imul(hash ^ (hash >>> 15), 2246822507) >>> 0;
    found = `oklch(var(--fn-l) ${0.11 + (hash % 5) * 0.015} ${(hash >>> 8) % 360})`;
    colours.set(name, found);
  }
  return found;
}

/**
 * Give an element these children, and keep those of its nodes that are there already, by their
 * `data-key` or their place: so focus, selection and what is being clicked stay. A node with
 * `data-own` changes its own content.
 */
export function morph(el, ...children) {
  const keyed = new Map();
  for (const child of el.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = el.firstChild;
  for (let now of children.flat().filter((each) => each !== null && each !== undefined && each !== "")) {
    if (!(now instanceof Node)) now = document.createTextNode(now);
    const key = now.dataset?.key;
    const old = key ? keyed.get(key) : at?.dataset?.key ? null : at;
    if (!old || !alike(old, now)) {
      el.insertBefore(now, at);
      if (!key && old) at = removed(old);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else el.insertBefore(old, at);
    settle(old, now);
  }
  while (at) at = removed(at);
}

function alike(old, now) {
  return old.nodeName === now.nodeName && old.dataset?.own === now.dataset?.own;
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function settle(old, now) {
  if (old.nodeType === Node.TEXT_NODE) return say(old, now.textContent);
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name) && name !== "style") old.removeAttribute(name);
  for (const { name, value } of now.attributes) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style.cssText !== now.style.cssText) old.style.cssText = now.style.cssText; // as attribute the policy forbids it
  old.copied = now.copied;
  if (!old.dataset.own) morph(old, ...now.childNodes);
}

/** A text with `code` in it. */
export function rich(text) {
  return text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
}

export function copyButton(text, label = "Copy") {
  const button = h("button", { class: "quiet", type: "button", data: { own: "copy" } }, label);
  button.copied = text;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(typeof button.copied === "function" ? button.copied() : button.copied);
      say(button, "Copied");
    } catch {
      say(button, "Not allowed");
    }
    setTimeout(() => say(button, label), 1200);
  });
  return button;
}

/** A line over recent values, 0 to its greatest. */
export function spark(width, height) {
  const line = svg("path", { class: "spark-line" });
  const area = svg("path", { class: "spark-area" });
  const el = svg("svg", {
    class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true",
  }, area, line);
  el.draw = (values, top = Math.max(...values, 1e-9)) => {
    if (values.length < 2) return;
    const step = width / (values.length - 1);
    const points = values.map((v, i) =>
      `${(i * step).toFixed(1)},${(height - 1 - (height - 2) * Math.min(1, v / top)).toFixed(1)}`);
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M0,${height}L${points.join("L")}L${width},${height}Z`);
  };
  return el;
}

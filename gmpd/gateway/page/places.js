// Names of the places where jobs run: a P of this machine, or a host of the cluster, which has the
// number of a P.

const HOSTS_FROM = 32768;
const names = new Map();

/** Remember the hosts of a snapshot: numbers do not come again for long. */
export function learnHosts(hosts) {
  for (const { p, name } of hosts) if (p !== null) names.set(p, name);
}

export function isHost(p) {
  return p >= HOSTS_FROM;
}

/** The name of a host without the scheme, which all of them have. */
export function hostName(name) {
  return name.replace(/^[a-z]+:\/\//, "");
}

export function placeName(p) {
  if (!isHost(p)) return `P${p}`;
  return names.has(p) ? `host ${hostName(names.get(p))}` : "a host";
}

/** The same at the beginning of a sentence. */
export function placeFirst(p) {
  const name = placeName(p);
  return name[0].toUpperCase() + name.slice(1);
}

// What a picture is a function of. All of it is in the link, at the precision at which it is used.

const LARGEST_SEED = 2n ** 64n - 1n;
const round4 = x => Math.round(x * 1e4) / 1e4;

function freshState(meta) {
  return { seed: "0", psi: 1, t: 0, w: meta.label.slice(), d: {}, l: {}, base: null, view: "one" };
}

// Seeds go around from 2^64 - 1 to 0.
const seedAfter = (seed, step) => String(BigInt.asUintN(64, BigInt(seed) + BigInt(step)));

function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

function toLink(state, meta) {
  const query = new URLSearchParams({ seed: state.seed });
  if (state.psi !== 1) query.set("psi", state.psi);
  if (state.t) query.set("t", state.t);
  if (String(state.w) !== String(meta.label)) query.set("w", state.w.join(","));
  const pairs = object => Object.entries(object).map(([name, value]) => `${name}:${value}`).join(",");
  if (Object.keys(state.d).length) query.set("d", pairs(state.d));
  if (Object.keys(state.l).length) query.set("l", pairs(state.l));
  if (state.base) query.set("z", toBase64(new Uint8Array(Float32Array.from(state.base).buffer)));
  if (state.view !== "one") query.set("view", state.view);
  return `#${query}`;
}

// Anything in a link that does not fit the model is left out.
function fromLink(hash, meta) {
  const query = new URLSearchParams(hash.slice(1)), state = freshState(meta);
  const number = (text, low, high) => Number.isFinite(+text) && text.trim() !== "" && +text >= low && +text <= high;
  const seed = query.get("seed") ?? "";
  if (/^\d{1,20}$/.test(seed) && BigInt(seed) <= LARGEST_SEED) state.seed = String(BigInt(seed));
  for (const name of ["psi", "t"]) if (query.has(name) && number(query.get(name), 0, 1)) state[name] = +query.get(name);
  const weights = query.get("w")?.split(",").map(Number);
  if (weights?.length === state.w.length && weights.every(x => Math.abs(x) < 1e3)) state.w = weights;
  const pairs = (text, allowed, reach) => Object.fromEntries((text ?? "").split(",").map(pair => pair.split(":"))
    .filter(([name, value]) => allowed(name) && number(value ?? "", -reach, reach)).map(([name, value]) => [name, +value]));
  state.d = pairs(query.get("d"), name => meta.directions.some(each => each.name === name), 2);
  state.l = pairs(query.get("l"), name => /^\d+$/.test(name) && +name < product(meta.z), 4);
  try {
    const base = query.has("z") && Array.from(new Float32Array(fromBase64(query.get("z").replaceAll(" ", "+")).buffer));
    if (base && base.length === product(meta.z) && base.every(Number.isFinite)) state.base = base;
  } catch { /* a damaged link has no latents */ }
  if (query.get("view") === "sheet") state.view = "sheet";
  return state;
}

// From the state to what the networks take: z and the label.

function slerp(a, b, t) {
  let dot = 0, aa = 0, bb = 0;
  a.forEach((x, i) => { dot += x * b[i]; aa += x * x; bb += b[i] * b[i]; });
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / Math.sqrt(aa * bb || 1)))), sine = Math.sin(angle);
  if (sine < 1e-6) return a.map((x, i) => (1 - t) * x + t * b[i]);
  return a.map((x, i) => (Math.sin((1 - t) * angle) * x + Math.sin(t * angle) * b[i]) / sine);
}

const coordinate = (z, vector) => vector.reduce((sum, x, i) => sum + x * z[i], 0);

// z of the state, with `seed` in place of its own: noise or what was found, then directions and latents that are set.
function latentOf(model, state, seed = state.seed) {
  let z;
  if (state.base && seed === state.seed) z = Float32Array.from(state.base);
  else {
    z = model.noise(seed);
    if (state.t) z = slerp(z, model.noise(seedAfter(seed, 1)), state.t);
    z = z.map(x => x * state.psi);
  }
  for (const direction of model.meta.directions) {
    if (!(direction.name in state.d)) continue;
    const change = state.d[direction.name] - coordinate(z, direction.vector);
    direction.vector.forEach((x, i) => { z[i] += change * x; });
  }
  for (const [index, value] of Object.entries(state.l)) z[index] = value;
  return z;
}

// The label that the weights of a state mean: a class part is a mixture whose weights sum to 1.
function labelOf(meta, weights) {
  const label = Float32Array.from(weights);
  let at = 0;
  for (const part of meta.parts) {
    if (part.kind === "class") {
      const total = label.subarray(at, at + part.size).reduce((a, b) => a + Math.max(b, 0), 0);
      for (let i = at; i < at + part.size; i++) label[i] = total ? Math.max(label[i], 0) / total : +(i === at);
    }
    at += part.size;
  }
  return label;
}

// The first place of each part in the label.
function placesOf(meta) {
  let at = 0;
  return meta.parts.map(part => (at += part.size) - part.size);
}

// The weights with one class of a part alone.
function withClass(meta, weights, number, name) {
  const at = placesOf(meta)[number], made = weights.slice();
  for (let i = 0; i < meta.parts[number].size; i++) made[at + i] = +(i === name);
  return made;
}

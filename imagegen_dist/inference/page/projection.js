// Projection as imagegen_dist/inference/projection.py: Adam over z and the mixture of classes, |z| held to the prior's.

const STEPS = 300, RATE = 0.1, GUESSES = 256, AT_ONCE = 32, CLASS_LOGIT = 4;

class Adam {
  constructor(size) {
    Object.assign(this, { m: new Float64Array(size), v: new Float64Array(size), step: 0 });
  }

  update(values, gradient, rate) {
    this.step++;
    const c1 = 1 - 0.9 ** this.step, c2 = 1 - 0.99 ** this.step;
    for (let i = 0; i < values.length; i++) {
      this.m[i] = 0.9 * this.m[i] + 0.1 * gradient[i];
      this.v[i] = 0.99 * this.v[i] + 0.01 * gradient[i] ** 2;
      values[i] -= (rate * (this.m[i] / c1)) / (Math.sqrt(this.v[i] / c2) + 1e-8);
    }
  }
}

const softmax = logits => {
  const most = Math.max(...logits), exp = logits.map(x => Math.exp(x - most)), sum = exp.reduce((a, b) => a + b, 0);
  return exp.map(x => x / sum);
};

const isClass = meta => meta.parts.length === 1 && meta.parts[0].kind === "class";

// {z, free}: the nearest of some samples, or the encoder's latents.
async function firstGuess(model, picture, mask, weights) {
  const { meta, labelWidth: K } = model;
  if (model.can("encoder")) {
    const label = labelOf(meta, weights);
    return { z: Float32Array.from(await model.encode(picture, label)), free: isClass(meta) ? label.map(x => CLASS_LOGIT * x) : label };
  }
  let best = Infinity, found = null;
  for (let start = 0; start < GUESSES; start += AT_ONCE) {
    const z = new Float32Array(AT_ONCE * model.z), label = new Float32Array(AT_ONCE * K);
    for (let i = 0; i < AT_ONCE; i++) {
      z.set(model.noise(2n ** 63n + 2n ** 62n + BigInt(start + i)), i * model.z);
      label.set(isClass(meta) ? labelOf(meta, withClass(meta, weights, 0, (start + i) % K)) : labelOf(meta, weights), i * K);
    }
    const made = await model.generate(z, label);
    for (let i = 0; i < AT_ONCE; i++) {
      let error = 0;
      for (let j = 0; j < model.size; j++) error += (made[i * model.size + j] - picture[j]) ** 2 * mask[j];
      if (error < best) {
        best = error;
        found = { z: z.slice(i * model.z, (i + 1) * model.z), free: label.slice(i * K, (i + 1) * K) };
      }
    }
  }
  if (isClass(meta)) found.free = found.free.map(x => CLASS_LOGIT * x);
  return found;
}

// Numbers stay in the data's range, attributes in [0, 1]; a class is a mixture.
function holdConditions(meta, free) {
  let at = 0;
  for (const part of meta.parts) {
    for (let i = 0; i < part.size; i++) {
      const [low, high] = part.kind === "vector" ? [part.low[i], part.high[i]] : [0, 1];
      free[at + i] = Math.min(high, Math.max(low, free[at + i]));
    }
    at += part.size;
  }
  return labelOf(meta, free);
}

// {z, weights, psnr}. tell(step, z, weights, psnr): is told of progress; stops if it returns false.
async function projectPicture(model, picture, mask, weights, tell) {
  const { meta } = model, radius = Math.sqrt(model.z), share = mask.reduce((a, b) => a + b, 0) / mask.length;
  const weight = mask.map(x => x / share);
  let { z, free } = await firstGuess(model, picture, mask, weights);
  const mixture = () => (isClass(meta) ? softmax(free) : free);
  const ofZ = new Adam(z.length), ofFree = new Adam(free.length);
  let psnr = 0;
  for (let step = 0; step < STEPS; step++) {
    const out = await model.run("projector", { z, free, samples: picture, weight });
    psnr = 10 * Math.log10(4 / Math.max(out.loss[0], 1e-12));
    if (tell(step, z, mixture(), psnr) === false) break;
    const rate = RATE * Math.min(1, (STEPS - step) / (0.3 * STEPS));
    ofZ.update(z, out.dz, rate);
    if (out.dfree) ofFree.update(free, out.dfree, rate);
    const length = Math.hypot(...z);
    if (length > radius) z = z.map(x => (x * radius) / length);
    if (!isClass(meta) && free.length) free = holdConditions(meta, free);
  }
  return { z: Array.from(z), weights: Array.from(mixture(), round4), psnr };
}

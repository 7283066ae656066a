// The model: its programs as functions of typed arrays.

const KEPT = 64;

const product = numbers => numbers.reduce((a, b) => a * b, 1);

async function loadModel(tell) {
  const meta = JSON.parse(new TextDecoder().decode(await readFile("model.json")));
  if (meta.runtime.server) return new RemoteModel(meta);
  const entries = Object.entries(meta.programs);
  const total = meta.runtime.bytes + entries.reduce((sum, [, entry]) => sum + entry.bytes, 0);
  let bytes = 0;
  const count = more => tell((bytes += more), total);
  const runtime = await loadRuntime(meta, count);
  const sessions = {};
  for (const [name, entry] of entries) {
    const file = await readModelFile(entry, count);
    try {
      sessions[name] = await runtime.ort.InferenceSession.create(file, { executionProviders: runtime.providers });
    } catch (error) {
      if (name !== "projector") throw new Error(`${entry.file}: ${error.message}`);
    }
  }
  return new Model(meta, runtime, sessions, bytes);
}

class Model {
  constructor(meta, runtime, sessions, bytes) {
    Object.assign(this, { meta, sessions, bytes, ort: runtime.ort, backend: runtime.backend, why: runtime.why });
    this.kept = new Map();
    this.z = product(meta.z);
    this.size = product(meta.shape);
    this.labelWidth = meta.parts.reduce((sum, part) => sum + part.size, 0);
  }

  // Arrays by input name -> arrays by output name. ONNX Runtime runs one call of a session at a time.
  async run(name, arrays) {
    const entry = this.meta.programs[name], feeds = {};
    for (const input of entry.inputs) {
      const each = product(input.shape);
      feeds[input.name] = new this.ort.Tensor("float32", arrays[input.name], [arrays[input.name].length / each, ...input.shape]);
    }
    const before = this.last ?? Promise.resolve();
    const run = before.catch(() => {}).then(() => this.sessions[name].run(feeds));
    this.last = run;
    const outputs = await run, found = {};
    for (const [key, tensor] of Object.entries(outputs)) found[key] = await tensor.getData();
    return found;
  }

  // Samples of draws of the prior, or with `decoded` of latents of the encoder, [B, Z] -> [B, C, *S] in [-1, 1].
  async generate(z, label, decoded = false) {
    const name = decoded && this.sessions.decoder ? "decoder" : this.meta.made;
    const output = await this.run(name, { z, noise: z, label });
    return Object.values(output)[0];
  }

  async encode(samples, label) {
    return Object.values(await this.run("encoder", { samples, label }))[0];
  }

  // The draw of the prior of a seed, as `model.latents_of([seed])`. The last few are kept, since sliders ask again.
  noise(seed) {
    const key = String(seed);
    if (!this.kept.has(key)) {
      if (this.kept.size >= KEPT) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(key, this.drawn(key));
    }
    return this.kept.get(key).slice();
  }

  drawn(seed) {
    const z = new Float32Array(this.z);
    let at = 0;
    this.meta.streams.forEach((size, stream) => {
      z.set(normals(BigInt(seed), 0n, size, stream), at);
      at += size;
    });
    return z;
  }
}

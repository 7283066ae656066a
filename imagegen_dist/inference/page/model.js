// The model: its programs as functions of typed arrays.

const KEPT = 64;

const product = numbers => numbers.reduce((a, b) => a * b, 1);

// By WebGPU if it draws the picture of seed 0 as the export did, else by WebAssembly, saying why.
async function loadModel(tell) {
  const meta = JSON.parse(new TextDecoder().decode(await readFile("model.json")));
  if (meta.runtime.server) return new RemoteModel(meta);
  const entries = Object.entries(meta.programs), files = {};
  const total = meta.runtime.bytes + entries.reduce((sum, [, entry]) => sum + entry.bytes, 0);
  let bytes = 0;
  const count = more => tell((bytes += more), total);
  for (const [name, entry] of entries) files[name] = await readModelFile(entry, count);
  const start = async (provider, why) => new Model(meta, { ...(await startRuntime(meta, provider, files, count)), why }, bytes);
  let why = await whyNoGpu("webgpu" in meta.runtime);
  if (why === null) {
    let model = null;
    try {
      model = await start("webgpu", "");
      if (await isFaithful(model)) return model;
      why = "WebGPU draws other pictures here";
    } catch (error) {
      why = `WebGPU failed (${error.message})`;
    }
    model?.computer.end();
  }
  return start("wasm", why);
}

// Whether the picture of seed 0 is that of the export, to two grey levels.
async function isFaithful(model) {
  const made = await model.generate(model.noise(0n), Float32Array.from(model.meta.label));
  return fromBase64(model.meta.check).every((level, i) => Math.abs(level - 127.5 * (Math.min(1, Math.max(-1, made[i])) + 1)) <= 2.5);
}

class Model {
  // computer: answers to tasks; backend: its name; why: why it is no other; has: names of its programs.
  constructor(meta, { computer, backend, why, has }, bytes) {
    Object.assign(this, { meta, computer, backend, why, bytes, names: new Set(has) });
    this.kept = new Map();
    this.z = product(meta.z);
    this.size = product(meta.shape);
    this.labelWidth = meta.parts.reduce((sum, part) => sum + part.size, 0);
  }

  // Whether it has the program of that name.
  can(name) {
    return this.names.has(name);
  }

  // Arrays by input name -> arrays by output name. ONNX Runtime runs one call of a session at a time.
  async run(name, arrays) {
    const feeds = {};
    for (const input of this.meta.programs[name].inputs) {
      const values = arrays[input.name];
      feeds[input.name] = [Float32Array.from(values), [values.length / product(input.shape), ...input.shape]];
    }
    const before = this.last ?? Promise.resolve();
    this.last = before.catch(() => {}).then(() => this.computer.ask("run", { name, feeds }));
    return this.last;
  }

  // Samples of draws of the prior, or with `decoded` of latents of the encoder, [B, Z] -> [B, C, *S] in [-1, 1].
  async generate(z, label, decoded = false) {
    const name = decoded && this.can("decoder") ? "decoder" : this.meta.made;
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

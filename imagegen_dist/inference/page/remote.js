// The answer, or what the server says is wrong.
async function answered(response) {
  if (response.ok) return response;
  const text = await response.text();
  throw new Error(response.headers.get("content-type")?.includes("json") ? JSON.parse(text).detail : text.trim());
}

// A model that the server of the page computes, with the interface of one that this browser computes.

class RemoteModel extends Model {
  constructor(meta) {
    const has = [...(meta.encodes ? ["encoder", "decoder"] : []), ...(meta.runtime.projects ? ["projector"] : [])];
    super(meta, { computer: null, backend: "server", why: "", has }, 0);
  }

  // All arrays one after another -> bytes. One request at a time, as a session computes one call.
  async ask(path, ...arrays) {
    const before = this.last ?? Promise.resolve();
    const asked = before.catch(() => {}).then(() => fetch(path, { method: "POST", body: new Blob(arrays) }));
    this.last = asked;
    return (await answered(await asked)).arrayBuffer();
  }

  async generate(z, label, decoded = false) {
    const bytes = await this.ask(decoded && this.can("decoder") ? "rows?decoded=true" : "rows", z, label);
    const stored = this.meta.bits === 16 ? new Uint16Array(bytes) : new Uint8Array(bytes);
    const highest = this.meta.bits === 16 ? 65535 : 255;
    return Float32Array.from(stored, value => value / (highest / 2) - 1);
  }

  async encode(samples, label) {
    return new Float32Array(await this.ask("rows/encode", samples, label));
  }

  // As projectPicture, by the server's POST /project, whose lines are its steps; what is transparent in the PNG is free.
  async project(picture, tell) {
    const stop = new AbortController();
    const asked = await fetch(`project?steps=${STEPS}&each=true`, { method: "POST", body: picture, signal: stop.signal });
    const reader = (await answered(asked)).body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", found = null;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines.map(JSON.parse)) {
        if (line.error) throw new Error(line.error);
        if (!line.latents) continue;
        found = { z: line.latents, weights: (line.label ?? []).map(round4), psnr: line.psnr };
        if (line.step && tell(line.step - 1, found.z, found.weights, line.psnr) === false) {
          stop.abort();
          return found;
        }
      }
    }
    if (!found) throw new Error("the server ended it");
    return found;
  }

  // Look for a newer checkpoint that the server follows, again and again. changed: is called when there is one.
  follow(changed) {
    if (!this.meta.runtime.follow_s) return;
    setInterval(async () => {
      const now = await fetch("model.json").then(response => response.json()).catch(() => this.meta);
      if (now.images === this.meta.images) return;
      this.meta.images = now.images;
      document.querySelector("header .name p").textContent = now.subtitle;
      changed();
    }, 1000 * this.meta.runtime.follow_s);
  }
}

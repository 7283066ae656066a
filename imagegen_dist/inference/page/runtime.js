// Files of the page (fetched, or inlined in a single file), and the worker that computes, with the backend that there is.

const inlined = name => document.getElementById(`file:${name}`)?.textContent;

const fromBase64 = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const toBase64 = bytes => btoa(Array.from(bytes, b => String.fromCharCode(b)).join(""));

// The bytes of a file. tell: is told of each further number of bytes.
async function readFile(name, tell = () => {}) {
  const text = inlined(name);
  if (text !== undefined) {
    const bytes = fromBase64(text);
    tell(bytes.length);
    return bytes;
  }
  if (location.protocol === "file:") {
    throw new Error("a folder needs a server: run `python -m http.server` in it; only a page of a single file opens from disk");
  }
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
  const parts = [], reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    tell(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// A file of the model, whose size and SHA-256 are those of model.json.
async function readModelFile(entry, tell) {
  const bytes = await readFile(entry.file, tell);
  if (bytes.length !== entry.bytes) {
    throw new Error(`${entry.file} is damaged: it has ${bytes.length.toLocaleString()} bytes, not ${entry.bytes.toLocaleString()}`);
  }
  if (globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    if (Array.from(digest, b => b.toString(16).padStart(2, "0")).join("") !== entry.sha256) {
      throw new Error(`${entry.file} is damaged: its SHA-256 is not that of model.json`);
    }
  }
  return bytes;
}

// Why there is no WebGPU, in words ("" if the page has none), or null: navigator.gpu also exists where no adapter answers.
async function whyNoGpu(offered) {
  if (!offered) return "";
  if (!navigator.gpu) return "this browser has no WebGPU";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter ? null : "no WebGPU adapter answers";
}

const blobUrl = text => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));

// A worker that holds the programs, and its backend in words. provider: "wasm" or "webgpu". tell: is told of bytes.
async function startRuntime(meta, provider, files, tell) {
  const names = meta.runtime[provider], isSingle = inlined(names.main) !== undefined;
  const script = name => (isSingle ? readFile(name) : new URL(name, location.href).href);
  const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  const [main, loader, wasm] = [await script(names.main), await script(names.loader), await readFile(names.wasm, tell)];
  const computer = new Computer();
  let wrong = {};
  try {
    wrong = await computer.ask("start", { main, loader, wasm, threads, provider, files });
    for (const [name, said] of Object.entries(wrong)) {
      if (name !== "projector") throw new Error(`${meta.programs[name].file}: ${said}`);
    }
  } catch (error) {
    computer.end();
    throw error;
  }
  const backend = provider === "webgpu" ? "WebGPU" : `WASM, ${threads} thread${threads > 1 ? "s" : ""}`;
  return { computer, backend, has: Object.keys(files).filter(name => !(name in wrong)) };
}

// Files of the page (fetched, or inlined in a single file), and ONNX Runtime Web with the backend that there is.

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

// {webgpu, why}: navigator.gpu also exists where no adapter answers.
async function findGpu(offered) {
  if (!offered) return { webgpu: false, why: "" };
  if (!navigator.gpu) return { webgpu: false, why: "this browser has no WebGPU" };
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter ? { webgpu: true, why: "" } : { webgpu: false, why: "no WebGPU adapter answers" };
}

const blobUrl = bytes => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));

// The runtime, and its backend in words. tell: is told of bytes.
async function loadRuntime(meta, tell) {
  const gpu = await findGpu("webgpu" in meta.runtime);
  const files = meta.runtime[gpu.webgpu ? "webgpu" : "wasm"];
  const isSingle = inlined(files.main) !== undefined;
  const source = async name => (isSingle ? blobUrl(await readFile(name)) : new URL(name, location.href).href);
  const ort = await import(await source(files.main));
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmBinary = (await readFile(files.wasm, tell)).buffer;
  ort.env.wasm.wasmPaths = { mjs: await source(files.loader) };
  ort.env.logLevel = "error";
  const threads = ort.env.wasm.numThreads;
  const wasm = `WASM, ${threads} thread${threads > 1 ? "s" : ""}`;
  return { ort, providers: [gpu.webgpu ? "webgpu" : "wasm"], backend: gpu.webgpu ? "WebGPU" : wasm, why: gpu.why };
}

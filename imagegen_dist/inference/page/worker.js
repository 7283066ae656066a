// ONNX Runtime in a worker, so that the page answers while it computes. The function's text is the worker's script: it
// sees nothing of the page. A page from disk can start no other kind, and what it imports has to be a blob of its own.

function workerMain() {
  const sessions = {};
  let ort = null;
  const source = file => (typeof file === "string" ? file : URL.createObjectURL(new Blob([file], { type: "text/javascript" })));
  const tasks = {
    // main, loader: an address, or the script's bytes. files: bytes by name -> what is wrong with which of them.
    async start({ main, loader, wasm, threads, provider, files }) {
      ort = await import(source(main));
      Object.assign(ort.env.wasm, { numThreads: threads, wasmBinary: wasm.buffer, wasmPaths: { mjs: source(loader) } });
      ort.env.logLevel = "error";
      const wrong = {};
      for (const [name, file] of Object.entries(files)) {
        try {
          sessions[name] = await ort.InferenceSession.create(file, { executionProviders: [provider] });
        } catch (error) {
          wrong[name] = error.message;
        }
      }
      return wrong;
    },

    // feeds: [values, dims] by name -> values by name.
    async run({ name, feeds }) {
      const tensors = Object.entries(feeds).map(([key, [values, dims]]) => [key, new ort.Tensor("float32", values, dims)]);
      const outputs = await sessions[name].run(Object.fromEntries(tensors)), found = {};
      for (const [key, tensor] of Object.entries(outputs)) found[key] = (await tensor.getData()).slice();
      return found;
    },
  };
  self.onmessage = async ({ data: { id, task, asked } }) => {
    try {
      self.postMessage({ id, found: await tasks[task](asked) });
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  };
}

class Computer {
  constructor() {
    this.worker = new Worker(blobUrl(`(${workerMain})()`));
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, found, error } }) => {
      const [resolve, reject] = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(found);
      else reject(new Error(error));
    };
    this.worker.onerror = event => {
      for (const [, reject] of this.waiting.values()) reject(new Error(event.message || "its worker cannot start"));
      this.waiting.clear();
    };
  }

  // What a task of the worker answers.
  ask(task, asked) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.count, [resolve, reject]);
      this.worker.postMessage({ id: this.count, task, asked });
    });
  }

  end() {
    this.worker.terminate();
  }
}

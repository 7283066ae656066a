// Start: load, connect buttons, keys, drops and links, and say how it is.

function say(state, text = state) {
  document.body.dataset.state = state;
  $("said").textContent = text;
}

function fail(title, error) {
  say("failed");
  $("veil-title").textContent = title;
  $("veil-text").textContent = error.message || String(error);
}

const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;

function loading(bytes, total) {
  $("progress").value = bytes / total;
  $("veil-text").textContent = `${megabytes(bytes)} of ${megabytes(total)}`;
}

async function saveAll(app) {
  const sheet = app.state.view === "sheet" ? app.shown : await app.sheet(), size = app.model.size, files = [];
  for (const [i, state] of sheet.states.entries()) {
    const canvas = document.createElement("canvas");
    paint(canvas, app.meta, sheet.data.slice(i * size, (i + 1) * size));
    const name = `seed${state.seed.padStart(6, "0")}-${String(i % sheet.columns).padStart(2, "0")}.png`;
    files.push([name, new Uint8Array(await (await toPng(canvas)).arrayBuffer())]);
  }
  files.push(["link.txt", new TextEncoder().encode(location.href)]);
  download(zip(files), `${app.meta.name}-seed${app.state.seed}.zip`);
}

// Past states as small pictures; a click returns to one.
function showHistory(app) {
  app.listeners.push((state, isSettled) => {
    const now = JSON.stringify(state);
    for (const button of $("history").children) button.setAttribute("aria-current", button.dataset.state === now);
    if (!isSettled || app.playing || [...$("history").children].some(button => button.dataset.state === now)) return;
    const small = element("canvas"), { canvas } = app, scale = Math.max(1, Math.max(canvas.width, canvas.height) / 104);
    small.width = canvas.width / scale;
    small.height = canvas.height / scale;
    small.getContext("2d").drawImage(canvas, 0, 0, small.width, small.height);
    const button = element("button", { ariaLabel: `Back to seed ${state.seed}`, onclick: () => app.go(JSON.parse(now)) }, small);
    button.dataset.state = now;
    button.setAttribute("aria-current", "true");
    $("history").prepend(button);
    while ($("history").children.length > 40) $("history").lastChild.remove();
  });
}

function connect(app) {
  const seed = step => app.act(state => Object.assign(state, { seed: seedAfter(state.seed, step), base: null, t: 0 }));
  const random = () => app.act(state => Object.assign(state, { seed: randomSeed(), base: null, t: 0 }));
  const sheet = () => app.act(state => { state.view = state.view === "sheet" ? "one" : "sheet"; });
  const save = async () => download(await toPng(app.canvas), `${app.meta.name}-seed${app.state.seed}.png`);
  const copy = async () => {
    await navigator.clipboard?.writeText(location.href).catch(() => {});
    $("link").textContent = "Copied";
    setTimeout(() => { $("link").textContent = "Copy link"; }, 1200);
  };
  const buttons = {
    previous: () => seed(-1), next: () => seed(1), random, play: () => app.play(), sheet, undo: () => app.undo(),
    reset: () => app.go(freshState(app.meta)), save, zip: () => saveAll(app), link: copy, help: () => $("keys").showModal(),
  };
  for (const [id, action] of Object.entries(buttons)) $(id).onclick = action;
  app.listeners.push(state => $("sheet").setAttribute("aria-pressed", state.view === "sheet"));
  const first = app.meta.parts.findIndex(part => part.kind === "class");
  addEventListener("keydown", event => {
    const { key, target } = event, isControl = event.ctrlKey || event.metaKey;
    if ($("keys").open || target.matches?.("input[type=text]")) return;
    const isSlider = target.matches?.("input[type=range]");
    const digit = /^\d$/.test(key) && first >= 0 && +key < app.meta.parts[first].size;
    const action = isControl
      ? { z: () => (event.shiftKey ? app.redo() : app.undo()), y: () => app.redo() }[key.toLowerCase()]
      : digit ? () => app.act(state => { state.w = withClass(app.meta, state.w, first, +key); })
      : { ...(!isSlider && { ArrowLeft: buttons.previous, ArrowRight: buttons.next }), r: random, " ": buttons.play, s: save, g: sheet, "?": buttons.help }[key.length > 1 ? key : key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
  app.canvas.addEventListener("click", event => {
    if (app.state.view !== "sheet") return;
    const box = app.canvas.getBoundingClientRect(), { width, height } = app.canvas, scale = Math.min(box.width / width, box.height / height);
    const [tall, wide] = frameSize(app.meta);
    const column = Math.floor((event.clientX - box.left - (box.width - width * scale) / 2) / scale / (wide + 1));
    const row = Math.floor((event.clientY - box.top - (box.height - height * scale) / 2) / scale / (tall + 1));
    const chosen = column >= 0 && column < app.shown.columns && app.shown.states[row * app.shown.columns + column];
    if (chosen) app.go({ ...chosen, view: "one" });
  });
  addEventListener("hashchange", () => {
    if (location.hash !== toLink(app.state, app.meta)) app.go(fromLink(location.hash, app.meta));
  });
}

// A picture may be dropped anywhere on the page, or pasted.
function connectDrops(app) {
  if (!app.take) return;
  document.querySelector(".hint").hidden = false;
  const over = is => $("drop").classList.toggle("over", is);
  addEventListener("dragover", event => { event.preventDefault(); over(true); });
  addEventListener("dragleave", () => over(false));
  addEventListener("drop", event => { event.preventDefault(); over(false); app.take(event.dataTransfer.files[0]); });
  addEventListener("paste", event => app.take(event.clipboardData.files[0]));
  app.listeners.push(() => { document.querySelector(".hint").hidden = app.past.length > 0; });
}

// Frames a second of the last second, and films and turns that go on by themselves.
function animate(app) {
  let last = performance.now(), before = 0;
  setInterval(() => {
    const now = performance.now(), rate = ((app.frames - before) * 1000) / (now - last);
    [last, before] = [now, app.frames];
    $("fps").textContent = rate > 2 ? `${Math.round(rate)} fps` : "–";
  }, 1000);
  if (!moves(app.meta)) return;
  const tick = () => { app.show(); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}

async function start() {
  const began = performance.now();
  try {
    const model = await loadModel(loading), app = new App(model);
    globalThis.imagegen = { app, model, normals, latentOf, labelOf, toLink, fromLink };
    $("backend").textContent = model.backend;
    $("backend").title = model.why;
    if (model.meta.runtime.server) $("where").textContent = "The server of this page computes.";
    buildPanel(app);
    showHistory(app);
    connect(app);
    connectDrops(app);
    await app.changed();
    if (document.body.dataset.state === "failed") return;
    animate(app);
    const why = model.why ? `; ${model.why}, so it computes by WebAssembly` : "";
    const loaded = model.bytes ? `: ${megabytes(model.bytes)}` : "";
    say("ready", `ready${loaded} in ${((performance.now() - began) / 1000).toFixed(1)} s${why}`);
    model.follow?.(() => app.changed());
    document.body.dataset.loaded = "true";
  } catch (error) {
    fail("The model could not be loaded", error);
  }
}

start();

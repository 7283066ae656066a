// The state with its history, and the picture of it: one computation at a time, the newest state wins.

const SHEET_ROWS = 6, SHEET_COLUMNS = 10, AT_A_TIME = 20, SETTLED_MS = 350, FILM_S = 2;

class App {
  constructor(model) {
    Object.assign(this, { model, meta: model.meta, state: fromLink(location.hash, model.meta), past: [], future: [] });
    Object.assign(this, { frames: 0, times: [], playing: false, wanted: false, busy: false, shown: null, listeners: [] });
    this.canvas = $("picture");
  }

  // Change the state by one step that can be undone.
  act(change) {
    this.remember();
    change(this.state);
    return this.changed();
  }

  remember() {
    this.past.push(JSON.stringify(this.state));
    if (this.past.length > 300) this.past.shift();
    this.future = [];
  }

  undo(from = this.past, to = this.future) {
    if (!from.length) return Promise.resolve();
    to.push(JSON.stringify(this.state));
    this.state = JSON.parse(from.pop());
    return this.changed();
  }

  redo() {
    return this.undo(this.future, this.past);
  }

  go(state) {
    return this.act(() => { this.state = JSON.parse(JSON.stringify(state)); });
  }

  changed() {
    history.replaceState(null, "", toLink(this.state, this.meta));
    this.listeners.forEach(listener => listener(this.state));
    return this.draw();
  }

  // Resolves when the newest state is on the canvas.
  draw() {
    this.wanted = true;
    this.drawn ??= this.drawing().finally(() => { this.drawn = null; });
    return this.drawn;
  }

  async drawing() {
    while (this.wanted) {
      this.wanted = false;
      const start = performance.now();
      const slow = setTimeout(() => say("computing"), 120);
      try {
        this.shown = this.state.view === "sheet" ? await this.sheet() : await this.one();
      } catch (error) {
        return fail("The model could not compute this", error);
      } finally {
        clearTimeout(slow);
      }
      this.show();
      this.measure((performance.now() - start) / this.shown.states.length);
      say("ready");
      if (this.wanted) await new Promise(requestAnimationFrame);
    }
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settled(), SETTLED_MS);
  }

  async one() {
    const { state, model } = this, decoded = Boolean(state.base);
    return { data: await model.generate(latentOf(model, state), labelOf(this.meta, state.w), decoded), columns: 1, states: [state] };
  }

  // A row for each seed, a column for each class or step of a number.
  async sheet() {
    const { model, meta } = this, columns = this.columns();
    const rows = columns.length > 1 ? SHEET_ROWS : SHEET_ROWS * 4, states = [];
    for (let row = 0; row < rows; row++) for (const w of columns) {
      const base = row ? null : this.state.base;
      states.push({ ...this.state, seed: seedAfter(this.state.seed, row), base, w, view: "one" });
    }
    const data = new Float32Array(states.length * model.size);
    for (const decoded of [true, false]) {
      const some = states.map((state, at) => ({ state, at })).filter(({ state }) => Boolean(state.base) === decoded);
      for (let start = 0; start < some.length && !this.wanted; start += AT_A_TIME) {
        const part = some.slice(start, start + AT_A_TIME);
        const z = new Float32Array(part.length * model.z), label = new Float32Array(part.length * model.labelWidth);
        part.forEach(({ state }, i) => {
          z.set(latentOf(model, state), i * model.z);
          label.set(labelOf(meta, state.w), i * model.labelWidth);
        });
        const made = await model.generate(z, label, decoded);
        part.forEach(({ at }, i) => data.set(made.subarray(i * model.size, (i + 1) * model.size), at * model.size));
      }
    }
    return { data, columns: columns.length > 1 ? columns.length : 6, states };
  }

  columns() {
    const { meta, state } = this, place = placesOf(meta), first = meta.parts.findIndex(part => part.kind === "class");
    if (first >= 0) {
      return Array.from({ length: Math.min(SHEET_COLUMNS, meta.parts[first].size) }, (_, i) => withClass(meta, state.w, first, i));
    }
    const number = meta.parts.findIndex(part => part.kind === "vector" && part.size === 1);
    if (number < 0) return [state.w];
    const { low: [low], high: [high] } = meta.parts[number];
    return Array.from({ length: 8 }, (_, i) => {
      const w = state.w.slice();
      w[place[number]] = round4(low + ((high - low) * i) / 7);
      return w;
    });
  }

  show() {
    if (!this.shown) return;
    const phase = moves(this.meta) ? (performance.now() / 1000 / FILM_S) % 1 : 0;
    paint(this.canvas, this.meta, this.shown.data, this.shown.columns, phase);
    this.frames++;
  }

  measure(ms) {
    this.times.push(ms);
    if (this.times.length > 30) this.times.shift();
    const typical = this.times.slice().sort((a, b) => a - b)[this.times.length >> 1];
    $("ms").title = "a picture, from the state to the canvas";
    $("ms").textContent = `${typical < 10 ? typical.toFixed(1) : Math.round(typical)} ms`;
  }

  settled() {
    this.listeners.forEach(listener => listener(this.state, true));
  }

  // Walk along great circles from seed to seed, until it is stopped.
  async play() {
    this.playing = !this.playing;
    $("play").setAttribute("aria-pressed", this.playing);
    if (!this.playing) return;
    this.remember();
    this.state.base = null;
    this.state.view = "one";
    for (let last = performance.now(); this.playing; ) {
      await new Promise(requestAnimationFrame);
      const now = performance.now(), t = this.state.t + Math.min(0.1, (now - last) / 1500);
      last = now;
      this.state.t = t < 1 ? round4(t) : 0;
      if (t >= 1) this.state.seed = seedAfter(this.state.seed, 1);
      await this.changed();
    }
  }
}

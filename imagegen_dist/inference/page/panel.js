// The panel: a card for the seed, the conditions, the directions, a picture, and the latents of an autoencoder.

function buildPanel(app) {
  const cards = [seedCard(app), ...conditionCards(app)];
  if (app.meta.directions.length) cards.push(directionCard(app));
  if (!moves(app.meta) && (app.model.can("encoder") || app.model.can("projector"))) cards.push(pictureCard(app));
  if (app.meta.latents.length) cards.push(latentCard(app));
  $("panel").replaceChildren(...cards);
}

// Update parts of the panel whenever the state changes.
const follow = (app, listener) => { app.listeners.push(listener); listener(app.state); };

const sliderOf = (app, set, free) => ({
  begin: () => app.remember(),
  set: value => { set(app.state, value); app.changed(); },
  ...(free && { free: () => { free(app.state); app.changed(); } }),
});

function seedCard(app) {
  const seed = element("input", { type: "text", inputMode: "numeric", ariaLabel: "Seed", id: "seed", autocomplete: "off" });
  seed.addEventListener("change", () => {
    const text = seed.value.trim();
    if (/^\d{1,20}$/.test(text) && BigInt(text) <= LARGEST_SEED) app.act(state => Object.assign(state, { seed: String(BigInt(text)), base: null, t: 0 }));
    else seed.value = app.state.seed;
  });
  const psi = slider("Truncation ψ", [0, 1, 0.01], { ...sliderOf(app, (state, x) => { state.psi = x; }), title: "Scales the noise: less variety, more typical samples" });
  const t = slider("To the next", [0, 1, 0.01], { ...sliderOf(app, (state, x) => Object.assign(state, { t: x, base: null })), title: "Along a great circle to the next seed" });
  follow(app, state => {
    if (document.activeElement !== seed) seed.value = state.seed;
    psi.show(state.psi, state.psi !== 1);
    t.show(state.t, state.t !== 0);
  });
  return card("Seed", "from 0 to 2⁶⁴ − 1", null, element("label", { className: "seed" }, element("span", { textContent: "Seed" }), seed), psi, t);
}

function conditionCards(app) {
  const places = placesOf(app.meta);
  const cards = app.meta.parts.map((part, number) => (part.kind === "class" ? classCard(app, part, number, places[number]) : null));
  const rows = app.meta.parts.flatMap((part, number) => (part.kind === "class" ? [] : numberRows(app, part, places[number])));
  return [...cards.filter(Boolean), ...(rows.length ? [card("Conditions", "in the data's units", null, ...rows)] : [])];
}

const SHOWN = 0.03; // of the largest weight, below which a class is not shown as part of a mixture

function classCard(app, part, number, at) {
  const mix = element("div", { className: "mix" });
  const chips = part.names.map((name, i) => element("button", {
    textContent: name,
    onclick: event => app.act(state => {
      if (event.shiftKey) state.w[at + i] = state.w[at + i] > 0 ? 0 : 1;
      else state.w = withClass(app.meta, state.w, number, i);
      if (!state.w.slice(at, at + part.size).some(x => x > 0)) state.w[at + i] = 1;
    }),
  }));
  let listed = "";
  const rows = new Map();
  follow(app, state => {
    const weights = state.w.slice(at, at + part.size), most = Math.max(...weights);
    const on = part.names.map((_, i) => i).filter(i => weights[i] > SHOWN * most);
    chips.forEach((chip, i) => {
      chip.setAttribute("aria-pressed", on.includes(i));
      chip.style.opacity = on.includes(i) ? 0.45 + (0.55 * weights[i]) / most : 1;
    });
    if (listed !== String(on)) {
      listed = String(on);
      rows.clear();
      if (on.length > 1) for (const i of on) rows.set(i, slider(part.names[i], [0.01, 1, 0.01], sliderOf(app, (s, x) => { s.w[at + i] = x; })));
      mix.replaceChildren(...rows.values());
    }
    rows.forEach((row, i) => row.show(state.w[at + i]));
  });
  const isShort = part.size <= 10 && part.names.every(name => name.length < 3);
  const title = part.name[0].toUpperCase() + part.name.slice(1);
  return card(title, "shift-click mixes", null, element("div", { className: isShort ? "chips short" : "chips" }, ...chips), mix);
}

// A slider for each number and attribute; numbers are shown in the data's units.
function numberRows(app, part, at) {
  return Array.from({ length: Math.min(part.size, 12) }, (_, i) => {
    const isNumber = part.kind === "vector";
    const [low, high] = isNumber ? [part.low[i], part.high[i]] : [0, 1];
    const name = part.names?.[i] ?? (part.size > 1 ? `${part.name} ${i + 1}` : part.name);
    const row = slider(name, [low, high, isNumber ? (high - low) / 200 : 0.01], sliderOf(app, (state, x) => { state.w[at + i] = round4(x); }));
    const output = row.querySelector("output");
    follow(app, state => {
      row.show(state.w[at + i]);
      if (!isNumber) return;
      const value = state.w[at + i] * part.deviation[i] + part.mean[i];
      output.textContent = Math.abs(value) < 10 ? value.toFixed(2) : value.toPrecision(3);
    });
    return row;
  });
}

function directionCard(app) {
  const rows = app.meta.directions.map(direction => {
    const row = slider(direction.name, [-2, 2, 0.01], {
      ...sliderOf(app, (state, x) => { state.d[direction.name] = x; }, state => { delete state.d[direction.name]; }),
      share: direction.explains,
      title: `Explains ${Math.round(100 * direction.explains)} % of ${direction.of}`,
    });
    follow(app, state => {
      const isSet = direction.name in state.d;
      row.show(isSet ? state.d[direction.name] : coordinate(latentOf(app.model, state), direction.vector), isSet);
    });
    return row;
  });
  const free = () => app.act(state => { state.d = {}; });
  return card("Directions", "what each explains below it", ["Free all", free], ...rows);
}

function latentCard(app) {
  const most = Math.max(...app.meta.latents.map(latent => latent.rate), 1e-9);
  const rows = app.meta.latents.map(({ index, rate }) => {
    const row = slider(`z${index}`, [-3, 3, 0.01], {
      ...sliderOf(app, (state, x) => { state.l[index] = x; }, state => { delete state.l[index]; }),
      share: rate / most, title: `${rate.toPrecision(3)} ${app.meta.rate_unit}`,
    });
    follow(app, state => row.show(index in state.l ? state.l[index] : latentOf(app.model, state)[index], index in state.l));
    return row;
  });
  const free = () => app.act(state => { state.l = {}; });
  return card("Latents", `by ${app.meta.rate_name}`, ["Free all", free], ...rows);
}

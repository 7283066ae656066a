// Draw or drop a picture, encode it, or find it in the model; a mask says which part has to fit.

function pictureCard(app) {
  const [height, width] = frameSize(app.meta), isColour = app.meta.shape[0] >= 3;
  const [encoder, projector] = ["encoder", "projector"].map(name => app.model.can(name));
  const pad = element("canvas", { id: "pad", width, height, ariaLabel: "Drawing" });
  const mask = element("canvas", { id: "mask", width, height });
  const file = element("input", { type: "file", accept: "image/*", id: "file", onchange: () => take(file.files[0]) });
  const colour = element("input", { type: "color", value: "#ffffff", ariaLabel: "Colour of the pen", hidden: !isColour });
  const note = element("p", { className: "note", id: "found" });
  const find = element("button", { id: "find", textContent: "Find", className: "primary", hidden: !projector });
  const encode = element("button", { id: "encode", textContent: "Encode", hidden: !encoder, onclick: () => encodeNow(true) });
  const masking = element("button", { id: "masking", textContent: "Mask", ariaPressed: "false", hidden: !projector, title: "Mark the part that has to fit; the rest is free" });
  masking.onclick = () => masking.setAttribute("aria-pressed", masking.getAttribute("aria-pressed") !== "true");
  const context = pad.getContext("2d", { willReadFrequently: true }), marks = mask.getContext("2d", { willReadFrequently: true });
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    marks.clearRect(0, 0, width, height);
    note.textContent = "Draw, or drop a picture.";
  };
  clear();

  async function encodeNow(isStep) {
    const label = labelOf(app.meta, app.state.w), z = await app.model.encode(samplesOf(pad, app.meta), label);
    if (isStep) app.remember();
    Object.assign(app.state, { base: Array.from(z), t: 0, d: {}, l: {}, view: "one" });
    await app.changed();
  }

  // Which part has to fit, 0 or 1 for each pixel; everything if nothing is marked.
  function weights() {
    const alpha = marks.getImageData(0, 0, width, height).data;
    const one = Float32Array.from({ length: width * height }, (_, i) => +(alpha[i * 4 + 3] > 0));
    return one.some(Boolean) ? one : one.fill(1);
  }

  // The drawing as a PNG in which what need not fit is transparent.
  function cutOut() {
    const image = context.getImageData(0, 0, width, height), cut = element("canvas", { width, height });
    weights().forEach((weight, i) => { image.data[i * 4 + 3] = 255 * weight; });
    cut.getContext("2d").putImageData(image, 0, 0);
    return toPng(cut);
  }

  async function search(tell) {
    if (app.model.project) return app.model.project(await cutOut(), tell);
    const one = weights(), mask = Float32Array.from({ length: one.length * app.meta.shape[0] }, (_, i) => one[i % one.length]);
    return projectPicture(app.model, samplesOf(pad, app.meta), mask, app.state.w, tell);
  }

  let finding = false;
  find.onclick = async () => {
    if (finding) { finding = false; return; }
    finding = true;
    find.textContent = "Stop";
    app.remember();
    Object.assign(app.state, { d: {}, l: {}, t: 0, view: "one" });
    const start = performance.now();
    let painted = start;
    try {
      const found = await search((step, z, w, psnr) => {
        note.textContent = `Step ${step + 1} of ${STEPS}: ${psnr.toFixed(1)} dB`;
        if (performance.now() - painted > 80) {
          painted = performance.now();
          Object.assign(app.state, { base: Array.from(z), w: Array.from(w, round4) });
          app.changed();
        }
        return finding;
      });
      Object.assign(app.state, { base: found.z, w: found.weights });
      await app.changed();
      note.textContent = `Found at ${found.psnr.toFixed(1)} dB in ${((performance.now() - start) / 1000).toFixed(1)} s. Now edit it.`;
    } catch (error) {
      note.textContent = `The search failed: ${error.message}`;
    } finally {
      finding = false;
      find.textContent = "Find";
    }
  };

  async function take(picture) {
    if (!picture) return;
    try {
      clear();
      await drawFile(pad, picture);
      note.textContent = "";
      await (projector ? find.onclick() : encodeNow(true));
    } catch (error) {
      note.textContent = error.message;
    }
  }

  let from = null;
  const position = event => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };
  const stroke = to => {
    const isMask = masking.getAttribute("aria-pressed") === "true", on = isMask ? marks : context;
    on.strokeStyle = isMask ? "#e4572e" : isColour ? colour.value : "#fff";
    Object.assign(on, { lineWidth: (isMask ? 0.16 : 0.085) * width, lineCap: "round", lineJoin: "round" });
    on.beginPath();
    on.moveTo(...from);
    on.lineTo(...to);
    on.stroke();
    from = to;
    if (encoder && !isMask) encodeNow(false);
  };
  pad.onpointerdown = event => {
    pad.setPointerCapture(event.pointerId);
    from = position(event);
    if (encoder) app.remember();
    stroke(position(event));
  };
  pad.onpointermove = event => from && stroke(position(event));
  pad.onpointerup = pad.onpointercancel = () => { from = null; };

  app.take = take;
  const upload = element("label", { className: "file" }, "Open…", file);
  const copy = element("button", { textContent: "From model", title: "The present picture", onclick: () => {
    paint(pad, app.meta, app.shown.data.slice(0, app.model.size));
    note.textContent = "";
  } });
  const buttons = element("div", { className: "buttons" }, upload, copy, element("button", { textContent: "Clear", id: "clear", onclick: clear }), colour, masking, encode, find);
  const about = projector ? "found in the model, then edited" : "encoded as you draw";
  return card("Your picture", about, null, element("div", { className: "draw" }, element("div", { className: "pad" }, pad, mask), buttons), note);
}

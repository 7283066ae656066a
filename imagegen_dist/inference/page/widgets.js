// Small parts of the page: elements, cards, sliders.

const $ = id => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A titled part of the panel. action: [text, function] of a button beside the title.
function card(title, about, action, ...children) {
  const head = element("div", { className: "head" }, element("h2", { textContent: title }), element("small", { textContent: about }));
  if (action) head.append(element("button", { textContent: action[0], onclick: action[1] }));
  return element("section", { className: "card" }, head, ...children);
}

// A slider in a row. begin: before a drag changes anything. set(value): on each change; free(): on a double click.
// share: from 0 to 1, a thin bar below. The row's `show(value, isSet)` displays a value.
function slider(name, [low, high, step], { begin, set, free, share, digits = 2, title = "" }) {
  const input = element("input", { type: "range", min: low, max: high, step, ariaLabel: name, className: free ? "free" : "" });
  const output = element("output"), row = element("label", { className: "row", title }, element("span", { textContent: name }), input, output);
  if (share !== undefined) {
    const bar = element("i");
    bar.style.width = `${Math.round(100 * share)}%`;
    row.append(element("span", { className: "meter" }, bar));
  }
  let dragging = false;
  input.addEventListener("input", () => {
    if (!dragging) begin();
    dragging = true;
    set(+input.value);
  });
  input.addEventListener("change", () => { dragging = false; });
  if (free) input.addEventListener("dblclick", () => { begin(); free(); });
  row.show = (value, isSet = true) => {
    input.value = value;
    output.textContent = (+value).toFixed(digits);
    row.classList.toggle("set", isSet);
  };
  return row;
}

function download(blob, name) {
  const a = element("a", { href: URL.createObjectURL(blob), download: name });
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}

const toPng = canvas => new Promise(done => canvas.toBlob(done, "image/png"));

// Drive the page in headless Chromium: node drive.mjs CHROMIUM < JSON of addresses > JSON of what was seen.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const at = JSON.parse(readFileSync(0, "utf8")), seen = { hosts: [], errors: [] };
const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
context.on("request", request => {
  const url = new URL(request.url());
  if (!["blob:", "data:", "file:"].includes(url.protocol)) seen.hosts.push(url.hostname);
});

async function open(url, isWhole = true) {
  const page = await context.newPage();
  page.on("pageerror", error => seen.errors.push(String(error)));
  page.on("console", message => message.type() === "error" && isWhole && seen.errors.push(message.text()));
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset.loaded || document.body.dataset.state === "failed");
  return page;
}

// The pixels of the newest state, and the link.
const look = page => page.evaluate(async () => {
  const { app } = imagegen;
  await app.draw();
  const { width, height } = app.canvas;
  const rgba = app.canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return { grey: Array.from({ length: width * height }, (_, i) => rgba[4 * i]), hash: location.hash, state: app.state, width, height };
});
const press = async (page, key) => {
  await page.keyboard.press(key);
  return look(page);
};

// A GAN: noise, pictures, keys, links, projection.
const gan = await open(`${at.gan}#seed=7`);
seen.state = await gan.evaluate(() => ({ state: document.body.dataset.state, said: document.getElementById("said").textContent,
  backend: imagegen.model.backend, isolated: crossOriginIsolated }));
// Ticks of a clock of the page while many pictures are computed: none if they are computed on its own thread.
seen.ticks = await gan.evaluate(async () => {
  const { model } = imagegen, count = 4000, label = new Float32Array(count * model.labelWidth);
  let ticks = 0, isDone = false;
  const tick = () => { ticks++; if (!isDone) setTimeout(tick, 1); };
  const made = model.generate(new Float32Array(count * model.z).fill(0.5), label).then(() => { isDone = true; });
  setTimeout(tick, 1);
  await made;
  return ticks;
});
seen.noise = await gan.evaluate(asked => asked.map(([seed, index, count, stream]) =>
  Array.from(imagegen.normals(BigInt(seed), BigInt(index), count, stream))), at.noise);
seen.pictures = [];
for (const hash of at.links) {
  await gan.evaluate(hash => { location.hash = hash; }, hash);
  await gan.waitForFunction(hash => imagegen.toLink(imagegen.fromLink(hash, imagegen.model.meta), imagegen.model.meta) === location.hash, hash);
  seen.pictures.push((await look(gan)).grey);
}
await gan.evaluate(() => { location.hash = "#seed=7"; });
await gan.waitForFunction(() => imagegen.app.state.seed === "7" && imagegen.app.state.psi === 1);
await gan.locator("#picture").focus();
seen.keys = { right: await press(gan, "ArrowRight"), left: await press(gan, "ArrowLeft"), digit: await press(gan, "1") };
seen.keys.random = await press(gan, "r");
seen.keys.undo = await press(gan, "Control+z");
seen.keys.sheet = await press(gan, "g");
seen.keys.one = await press(gan, "g");
await gan.keyboard.press("?");
seen.keys.help = await gan.evaluate(() => document.getElementById("keys").open);
await gan.keyboard.press("Escape");
await gan.keyboard.press(" ");
await gan.waitForFunction(() => imagegen.app.state.t > 0);
await gan.keyboard.press(" ");
seen.keys.played = await look(gan);
for (const [key, trigger] of [["png", () => gan.keyboard.press("s")], ["zip", () => gan.click("#zip")]]) {
  const [file] = await Promise.all([gan.waitForEvent("download"), trigger()]);
  seen[key] = { name: file.suggestedFilename(), bytes: readFileSync(await file.path()).toString("base64") };
}
await gan.evaluate(() => imagegen.app.go({ ...imagegen.fromLink("#seed=9", imagegen.model.meta) }));
await gan.setInputFiles("#file", at.picture);
await gan.waitForFunction(() => /^(Found|The search)/.test(document.getElementById("found").textContent), null, { timeout: 60000 });
seen.found = { text: await gan.textContent("#found"), ...(await look(gan)) };
const again = await open(at.gan + seen.found.hash);
seen.linked = await look(again);

// A narrow window, dark and light.
await gan.setViewportSize({ width: 390, height: 844 });
seen.narrow = await gan.evaluate(() => ({ width: document.documentElement.scrollWidth, panel: getComputedStyle(document.querySelector("main")).gridTemplateColumns }));

// An autoencoder from disk: a drawing is encoded, its link gives the same pixels; a latent moves.
const vae = await open(at.vae);
await vae.locator("#pad").scrollIntoViewIfNeeded();
const box = await vae.locator("#pad").boundingBox();
await vae.mouse.move(box.x + 30, box.y + 20);
await vae.mouse.down();
await vae.mouse.move(box.x + 80, box.y + 100, { steps: 4 });
await vae.mouse.up();
await vae.waitForFunction(() => imagegen.app.state.base);
await vae.click("#encode");
await vae.waitForTimeout(200);
seen.drawn = await look(vae);
seen.drawn.pad = await vae.evaluate(() => Array.from(document.getElementById("pad").getContext("2d").getImageData(0, 0, pad.width, pad.height).data).filter((_, i) => i % 4 === 0));
seen.drawnAgain = await look(await open(at.vae + seen.drawn.hash));
seen.latents = await vae.evaluate(() => imagegen.model.meta.latents.map(latent => latent.rate));

// Films, a damaged file, and a folder opened from disk.
const film = await open(at.video);
seen.film = await film.evaluate(async () => {
  const frames = new Set(), { app } = imagegen;
  for (let i = 0; i < 40; i++) {
    frames.add(app.canvas.toDataURL());
    await new Promise(done => setTimeout(done, 50));
  }
  return frames.size;
});
const failed = async url => {
  const page = await open(url, false);
  return page.evaluate(() => [document.body.dataset.state, document.getElementById("veil-text").textContent]);
};
seen.broken = await failed(at.broken);

// The same pages from a server, which computes.
if (at.server) {
  const remote = await open(`${at.server}/models/gan/`);
  seen.remote = { backend: await remote.evaluate(() => imagegen.model.backend), pictures: [] };
  for (const hash of at.links) {
    await remote.evaluate(hash => { location.hash = hash; }, hash);
    await remote.waitForFunction(hash => imagegen.toLink(imagegen.fromLink(hash, imagegen.model.meta), imagegen.model.meta) === location.hash, hash);
    seen.remote.pictures.push((await look(remote)).grey);
  }
  await remote.setInputFiles("#file", at.picture);
  await remote.waitForFunction(() => /^(Found|The search)/.test(document.getElementById("found").textContent), null, { timeout: 60000 });
  seen.remote.found = { text: await remote.textContent("#found"), ...(await look(remote)) };
  await remote.click("#find");
  await remote.waitForFunction(() => /^Step/.test(document.getElementById("found").textContent));
  await remote.click("#find");
  await remote.waitForFunction(() => document.getElementById("find").textContent === "Find");
  await remote.waitForFunction(async () => (await (await fetch("/stats")).json()).projecting.gan === 0);
  seen.remote.drawn = await look(await open(`${at.server}/models/vae/${seen.drawn.hash}`));
}
console.log(JSON.stringify(seen));
await browser.close();

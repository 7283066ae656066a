// What a page computes by each backend: node backends.mjs CHROMIUM < {"visits": [{url, args, links}]} > JSON
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const { visits } = JSON.parse(readFileSync(0, "utf8")), seen = [];
for (const { url, args, links } of visits) {
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox", ...args] });
  const page = await browser.newPage(), errors = [];
  page.on("pageerror", error => errors.push(String(error)));
  page.on("console", message => message.type() === "error" && errors.push(message.text()));
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset.loaded || document.body.dataset.state === "failed", null, { timeout: 120000 });
  const said = await page.textContent("#said");
  const found = await page.evaluate(async links => {
    if (document.body.dataset.state === "failed") throw new Error(document.getElementById("veil-text").textContent);
    const { app, model } = imagegen, pictures = [];
    for (const link of links) {
      await app.go(imagegen.fromLink(link, model.meta));
      pictures.push(Array.from(app.shown.data, x => Math.round((x + 1) * 127.5)));
    }
    const free = Float32Array.from({ length: model.labelWidth }, (_, i) => i / 2);
    const [samples, weight] = [0.5, 1].map(value => new Float32Array(model.size).fill(value));
    const step = await model.run("projector", { z: model.noise(3n), free, samples, weight });
    const adapter = await navigator.gpu?.requestAdapter();
    return { adapter: Boolean(adapter), isolated: crossOriginIsolated, backend: model.backend, why: model.why, pictures,
      step: Object.fromEntries(Object.entries(step).map(([name, values]) => [name, Array.from(values)])) };
  }, links);
  seen.push({ ...found, said, workers: page.workers().length, errors });
  await browser.close();
}
console.log(JSON.stringify(seen));

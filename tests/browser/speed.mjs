// How fast the page is: node speed.mjs CHROMIUM URL > {"backend", "ms": of a picture, "fps": pictures a second of a drag}
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox", "--disable-gpu"] });
const page = await (await browser.newContext({ viewport: { width: 1400, height: 900 } })).newPage();
await page.goto(process.argv[3]);
await page.waitForFunction(() => document.body.dataset.loaded, null, { timeout: 120000 });
const seen = await page.evaluate(async () => {
  const { app, model } = imagegen, times = [];
  const label = new Float32Array(model.labelWidth);
  if (label.length) label[0] = 1;
  for (let i = 0; i < 20; i++) {
    const began = performance.now();
    await model.generate(model.noise(i), label);
    times.push(performance.now() - began);
  }
  const before = app.frames, began = performance.now();
  const slider = document.querySelector("input[type=range]");
  for (let i = 0; performance.now() - began < 3000; i++) {
    slider.value = slider.max * (0.5 + 0.5 * Math.sin(i / 10));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise(requestAnimationFrame);
  }
  const fps = ((app.frames - before) * 1000) / (performance.now() - began);
  return { backend: model.backend, ms: times.sort((a, b) => a - b)[10], fps };
});
console.log(JSON.stringify(seen));
await browser.close();

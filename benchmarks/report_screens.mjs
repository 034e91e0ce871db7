// Takes screenshots of a report in headless Chromium, with the network cut, and checks the page.
//
//   npm install @sparticuz/chromium puppeteer-core      (in any folder)
//   cp benchmarks/report_screens.mjs THAT_FOLDER && cd THAT_FOLDER
//   node report_screens.mjs REPORT/index.html OUTPUT
//
// Writes WIDTH-SCHEME-NUMBER.png, one picture per screen, for widths of 400, 1200 and 2000 pixels, light and dark, and
// page.pdf. Prints one line per width and scheme: requests besides the page itself, errors, and faults: a page wider than
// the window, texts that a chart cuts off, texts of an axis or legend that overlap, a control that Tab does not reach. Ends with 1 if there are any.
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const HEIGHT = 1500;
const [page_file, output] = process.argv.slice(2).map((word) => resolve(word));
mkdirSync(output, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: await chromium.executablePath(), headless: "shell", args: [...chromium.args, "--no-sandbox"], protocolTimeout: 600000,
});

// Runs in the page.
function faults() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth + 1) {
    found.push(`page of ${document.documentElement.scrollWidth} px`);
  }
  for (const figure of document.querySelectorAll("figure[id]")) {
    const chart = figure.querySelector("svg.marks, canvas.marks");
    if (!chart) {
      found.push(`${figure.id}: no chart`);
      continue;
    }
    const frame = figure.querySelector(".chart").getBoundingClientRect();
    const texts = [...chart.querySelectorAll("text")].filter((text) => text.textContent.trim() && text.getAttribute("opacity") !== "0");
    for (const text of texts) {
      const box = text.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        found.push(`${figure.id}: "${text.textContent}" is cut off`);
      }
    }
    const labels = [...chart.querySelectorAll(".role-axis-label text, .role-legend-label text, .role-axis-title text")];
    const visible = labels.filter((text) => text.getAttribute("opacity") !== "0" && !text.getAttribute("transform")?.includes("rotate(-"));
    for (let first = 0; first < visible.length; first++) {
      for (let second = first + 1; second < visible.length; second++) {
        const [one, other] = [visible[first].getBoundingClientRect(), visible[second].getBoundingClientRect()];
        const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (across > 2 && down > 4) found.push(`${figure.id}: "${visible[first].textContent}" over "${visible[second].textContent}"`);
      }
    }
  }
  return found;
}

// One picture per screen: a picture of more than 8,192 pixels repeats its beginning, and of far more ends the browser.
async function screens(page, name) {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  for (let number = 0; number * HEIGHT < height; number++) {
    await page.evaluate((top) => scrollTo({ top, behavior: "instant" }), number * HEIGHT);
    await page.screenshot({ path: `${name}-${String(number).padStart(2, "0")}.png`, captureBeyondViewport: false });
  }
}

// Returns faults of the controls: not reached by Tab, a name in a legend that hides nothing, a point without a tooltip.
async function controls(page) {
  const found = [];
  await page.evaluate(() => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    window.reached = new Set();
    addEventListener("focusin", (event) => window.reached.add(event.target));
  });
  const wanted = () => [...document.querySelectorAll("a, select:enabled, input, button, summary, [tabindex]")].filter((one) => one.tabIndex >= 0);
  const num_wanted = await page.evaluate(`(${wanted})().length`);
  for (let press = 0; press <= num_wanted; press++) await page.keyboard.press("Tab");
  const missed = await page.evaluate(`(${wanted})().filter((one) => !window.reached.has(one)).map((one) => one.outerHTML.slice(0, 80))`);
  found.push(...missed.map((one) => `not reached by Tab: ${one}`));

  const marks = () => document.querySelectorAll("#figure-curves .mark-line path").length;
  const legend = await page.$("#figure-curves .legend button");
  if (legend) {
    const before = await page.evaluate(marks);
    await legend.click();
    await page.waitForFunction((count) => document.querySelectorAll("#figure-curves .mark-line path").length === count, { timeout: 5000 }, before - 1)
      .catch(() => found.push("a name in the legend of the curves hides no curve"));
    await page.click("#all");
  }
  const point = await page.$("#figure-summary .mark-symbol path");
  if (point) {
    await point.hover();
    await page.waitForSelector("#vg-tooltip-element.visible", { timeout: 5000 }).catch(() => found.push("a point shows no numbers"));
  }
  return found;
}

let is_clean = true;
for (const width of [400, 1200, 2000]) {
  for (const scheme of ["light", "dark"]) {
    const page = await browser.newPage();
    await page.setOfflineMode(true);
    const requests = [], errors = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => ["error", "warn"].includes(message.type()) && errors.push(message.text()));
    await page.setViewport({ width, height: HEIGHT, deviceScaleFactor: 1 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    const began = Date.now();
    await page.goto(pathToFileURL(page_file).href, { waitUntil: "load" });
    await page.waitForFunction(() => window.drawAll);
    await page.evaluate(() => window.drawAll());
    await page.waitForFunction(() => [...document.querySelectorAll(".chart")].every((chart) => chart.querySelector("svg, canvas")), { timeout: 120000 });
    const drawn = Date.now() - began;
    await new Promise((done) => setTimeout(done, 500));
    const found = await page.evaluate(faults);
    await screens(page, `${output}/${width}-${scheme}`);
    if (width === 1200 && scheme === "light") {
      const before = errors.length;
      found.push(...(await controls(page)));
      // A chart whose only group is hidden has no numbers.
      errors.push(...errors.splice(before).filter((text) => !text.includes("Infinite extent")));
    }
    if (width === 1200 && scheme === "dark") await page.pdf({ path: `${output}/page.pdf`, format: "A4" });
    const others = requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:"));
    is_clean &&= !others.length && !errors.length && !found.length;
    console.log(JSON.stringify({ width, scheme, drawn_ms: drawn, requests: others, errors, faults: found.slice(0, 12), num_faults: found.length }));
    await page.close();
  }
}
await browser.close();
process.exit(is_clean ? 0 : 1);

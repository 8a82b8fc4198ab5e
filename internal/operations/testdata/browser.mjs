// Looks at the operations page in headless Chromium: node browser.mjs URL DIRECTORY. Exits with 1 if axe-core finds anything
// serious, if the page is wider than its window, or if the browser has anything to complain about. `make page` runs it.
import { createRequire } from "node:module";
import { mkdtempSync, rmSync, existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, directory] = process.argv.slice(2);
const require = createRequire(join(process.env.NODE_PATH, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((p) => p && existsSync(p));
if (!executablePath) throw new Error("there is no Chromium: install it, or set CHROMIUM to its path");
const profile = mkdtempSync(join(tmpdir(), "page-"));
const context = (options) => chromium.launchPersistentContext(mkdtempSync(join(profile, "p")), {
  executablePath, bypassCSP: false, ...options,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

let wrong = 0;
const complain = (text) => { wrong++; console.log("WRONG: " + text); };
const looks = [
  ["light", "/", { width: 1120, height: 900 }, "light"],
  ["dark", "/", { width: 1120, height: 900 }, "dark"],
  ["narrow", "/", { width: 375, height: 812 }, "light"],
  ["store-down", "/down", { width: 1120, height: 900 }, "light"],
  ["partitions", "/?open=usage", { width: 1120, height: 900 }, "dark"],
  ["sign-in", "/sign-in", { width: 1280, height: 700 }, "light"],
];
for (const [name, path, viewport, colorScheme] of looks) {
  const browser = await context({ viewport, colorScheme, javaScriptEnabled: true });
  const page = await browser.newPage();
  page.on("console", (m) => { if (["error", "warning"].includes(m.type()) && !m.text().includes("favicon")) complain(`${name}: the browser says: ${m.text()}`); });
  await page.goto(url + path);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) complain(`${name}: the page is ${wide} px wider than its window`);
  if (viewport.width > 1000) {
    const cut = await page.evaluate(() => [...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute("aria-label")));
    for (const label of cut) complain(`${name}: the ${label} does not fit into its panel`);
  }
  // Screenshots before axe, which puts itself into the page.
  if (["light", "dark", "narrow", "store-down"].includes(name)) await page.screenshot({ path: join(directory, `operations-${name}.png`) });
  // The first stop of the keyboard is the way past the header, and the focus can be seen.
  if (path !== "/sign-in") {
    await page.keyboard.press("Tab");
    const first = await page.evaluate(() => document.activeElement.textContent);
    if (first !== "Skip to the panels") complain(`${name}: the first stop of the keyboard is ${first}`);
    await page.keyboard.press("Tab");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    if (outline === "none") complain(`${name}: the focus can't be seen`);
  }
  await page.evaluate(axe);
  const result = await page.evaluate(() => axe.run(document, { resultTypes: ["violations", "incomplete"] }));
  for (const v of result.violations) {
    const text = `${name}: axe: ${v.impact}: ${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`;
    if (["serious", "critical"].includes(v.impact)) complain(text);
    else console.log("minor: " + text);
  }
  console.log(`${name}: axe passed ${result.passes.length} rules, ${result.violations.length} violations, ${result.incomplete.length} to be judged by a person (${result.incomplete.map((v) => v.id).join(", ")})`);
  await browser.close();
}
rmSync(profile, { recursive: true, force: true });
process.exit(wrong ? 1 : 0);

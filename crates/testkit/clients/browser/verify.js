// Opens a bundle's page from the disk in a real browser, gives it bundles and keys, and prints what it shows.
// node verify.js PAGE CASES.json [SCREENSHOT-PREFIX]; a case is {"bundle": path, "key": text}.
"use strict";
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

async function main() {
  const [page, casesFile, prefix] = process.argv.slice(2);
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "onrecord-browser-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1180, height: 1000 },
    colorScheme: process.env.COLOR_SCHEME || "light",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  try {
    const results = [];
    for (const [index, one] of JSON.parse(fs.readFileSync(casesFile, "utf8")).entries()) {
      const tab = await browser.newPage();
      const asked = [], said = [];
      tab.on("request", (request) => asked.push(request.url()));
      tab.on("console", (message) => said.push(message.text()));
      tab.on("pageerror", (error) => said.push(String(error)));
      await tab.goto("file://" + page);
      if (one.key) await tab.fill("#key", one.key);
      await tab.setInputFiles("#file", one.bundle);
      await tab.waitForFunction(() => /^(Checked|Not checked)/.test(document.getElementById("state").textContent), null, { timeout: 60000 });
      results.push(await tab.evaluate(() => ({
        state: document.getElementById("state").textContent,
        shown: !document.getElementById("result").hidden,
        ownKey: !document.getElementById("ownkey").hidden,
        verdicts: [...document.querySelectorAll(".verdict")].map((card) => ({
          name: card.querySelector("h3").textContent,
          word: card.querySelector(".word").textContent,
          details: [...card.querySelectorAll("li")].map((item) => item.textContent),
        })),
        about: document.getElementById("about").textContent,
        commands: [...document.querySelectorAll("#commands tr")].map((row) => [...row.cells].map((cell) => cell.textContent)),
        markup: document.querySelectorAll("#commands b, #commands script, #commands img").length,
      })));
      Object.assign(results.at(-1), { said, foreign: asked.filter((url) => !url.startsWith("file:")) });
      if (prefix) await tab.screenshot({ path: prefix + index + ".png", fullPage: true });
      await tab.close();
    }
    console.log(JSON.stringify(results));
  } finally {
    await browser.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

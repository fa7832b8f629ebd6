// The page of one viewer: what he chose, the tiles, the panel, the keys.

import { Curves } from "./curves.js";
import { Choice, fillSelect, Legend, percent } from "./panel.js";
import { save, snapshot } from "./snapshot.js";
import { Stream } from "./stream.js";
import { Tile } from "./tile.js";

const MODES = [
  { value: "overlay", text: "Overlay", key: "1" },
  { value: "mask", text: "Mask", key: "2" },
  { value: "edges", text: "Edges", key: "3" },
  { value: "side", text: "Side by side", key: "4" },
  { value: "camera", text: "Camera", key: "5" },
];
const ALL = "All";
const SILENT_MS = 4000;

const $ = (id) => document.getElementById(id);

// What the viewer chose; the browser remembers it.
const remembered = JSON.parse(localStorage.getItem("edgeseg") ?? "{}");
const settings = {
  mode: "overlay", opacity: 0.5, split: 0.5, source: ALL, compare: false, engineA: "", engineB: "",
  theme: "", ...remembered,
  hidden: new Set(remembered.hidden ?? []),
  engines: [], // those in the picture: one, or two to compare
  colours: new Uint32Array(256),
};
const tiles = new Map();
let hello = null;
let paused = false;
let held = false; // while paused, nothing is drawn
let legend = null;
let sourceChoice = null;
let tip = null; // where the pointer is: tile, x, y

const curves = new Curves($("curves"));
const modeChoice = new Choice($("modes"), MODES, (value) => change({ mode: value }));
const stream = new Stream({ onHello, onFrame, onState });

function remember() {
  const { engines, colours, hidden, ...rest } = settings;
  localStorage.setItem("edgeseg", JSON.stringify({ ...rest, hidden: [...hidden] }));
}

/** Change what the viewer chose, and show it at once. */
function change(changes) {
  Object.assign(settings, changes);
  remember();
  apply();
}

/** Bring everything in line with the settings. */
function apply() {
  modeChoice.show(settings.mode);
  $("opacity").value = Math.round(settings.opacity * 100);
  $("opacity-text").textContent = `${Math.round(settings.opacity * 100)} %`;
  $("opacity").disabled = !(settings.mode === "overlay" || settings.mode === "side");
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  if (!hello) return;

  const { names, palette, ignore_id: ignore } = hello.labels;
  settings.colours.fill(0);
  names.forEach((name, id) => {
    const [r, g, b] = palette[id];
    if (!settings.hidden.has(name) && id !== ignore)
      settings.colours[id] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
  legend.shown();

  const several = hello.engines.length > 1;
  const comparing = several && settings.compare;
  settings.engines = comparing ? [settings.engineA, settings.engineB] : [settings.engineA];
  $("engine-box").hidden = !several;
  $("engine-a").value = settings.engineA;
  $("engine-b").value = settings.engineB;
  $("engine-a-text").textContent = comparing ? "Left" : "Show";
  $("engine-b-row").hidden = !comparing;
  $("compare").checked = comparing;
  $("difference").toggleAttribute("data-off", !comparing);

  const looked = settings.source === ALL ? hello.sources : [settings.source];
  sourceChoice.show(settings.source);
  $("source-box").hidden = hello.sources.length < 2;
  $("stage").dataset.tiles = Math.min(looked.length, 9);
  for (const [name, tile] of tiles) tile.root.hidden = !looked.includes(name);
  for (const tile of tiles.values()) tile.draw();

  const choice = { sources: looked, engines: settings.engines };
  if (JSON.stringify(choice) !== JSON.stringify(stream.choice)) stream.subscribe(choice);
  for (const tile of tiles.values()) tile.place();
  showFacts();
}

function onHello(message) {
  hello = message;
  if (!hello.sources.includes(settings.source)) settings.source = ALL;
  if (hello.sources.length === 1) settings.source = hello.sources[0];
  if (!hello.engines.includes(settings.engineA)) settings.engineA = hello.engines[0];
  if (!hello.engines.includes(settings.engineB) || settings.engineB === settings.engineA)
    settings.engineB = hello.engines.find((name) => name !== settings.engineA) ?? "";

  const sources = hello.sources.length > 1 ? [ALL, ...hello.sources] : hello.sources;
  sourceChoice = new Choice($("sources"), sources.map((name) => ({ value: name, text: name })), pick);
  for (const id of ["engine-a", "engine-b"]) fillSelect($(id), hello.engines);
  $("legend").replaceChildren();
  legend = new Legend($("legend"), hello.labels, settings, onClass);

  tiles.clear();
  for (const name of hello.sources)
    tiles.set(name, new Tile(name, settings, { onHover, onSplit, onOpen }));
  $("stage").replaceChildren(...[...tiles.values()].map((tile) => tile.root));
  stream.choice = null;
  document.body.classList.remove("waiting");
  apply();
}

function pick(source) {
  curves.clear();
  change({ source });
}

function onOpen(source) {
  if (hello.sources.length > 1) pick(settings.source === ALL ? source : ALL);
}

function onSplit(split) {
  settings.split = split;
  remember();
  for (const tile of tiles.values()) tile.draw();
}

function onClass(what, id) {
  const { hidden } = settings;
  const { names } = hello.labels;
  if (what === "toggle") hidden.has(names[id]) ? hidden.delete(names[id]) : hidden.add(names[id]);
  if (what === "all" || what === "only") hidden.clear();
  if (what === "none" || what === "only") names.forEach((name) => hidden.add(name));
  if (what === "only") hidden.delete(names[id]);
  change({});
}

/** Return the tile whose figures the panel shows: the chosen one, or the first. */
function main() {
  return tiles.get(settings.source) ?? tiles.values().next().value ?? null;
}

function onFrame(frame) {
  const tile = tiles.get(frame.header.source);
  if (!tile || held) {
    frame.picture.close();
    return;
  }
  tile.take(frame);
  held = paused && [...tiles.values()].every((one) => one.root.hidden || one.header);
  if (tile === main()) {
    curves.add(frame.header);
    showFacts();
  }
  caption(tile);
  if (tip?.tile === tile) showTip();
}

const shown = (value, digits, unit = "") =>
  value === null || value === undefined ? "–" : value.toFixed(digits) + unit;

function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

/** Show the figures of the main tile. */
function showFacts() {
  const tile = main();
  const header = tile?.header;
  if (!header) return;
  write("fps", shown(header.fps, 1));
  write("age", shown(header.age_ms, 0, " ms"));
  write("network", shown(header.network_ms, 1, " ms"));
  write("dropped", String(header.dropped));
  $("heat-box").hidden = header.temperature_c === null && header.watts === null;
  const heat = [shown(header.temperature_c, 0, " °C"), shown(header.watts, 1, " W")];
  write("heat", heat.filter((text) => text !== "–").join(" · "));

  legend.take(tile.mask(settings.engines[0]));
  const difference = tile.difference();
  write("difference", difference === null ? "" : `The two differ on ${percent(difference)} of the pixels.`);
}

function caption(tile) {
  const { header } = tile;
  const age = header.age_ms === null ? `at ${header.time_s.toFixed(1)} s` : `${header.age_ms.toFixed(0)} ms old`;
  const text = header.lost_s === null ? `${shown(header.fps, 1)} FPS · ${age}` : "no signal";
  if (tile.facts.textContent !== text) tile.facts.textContent = text;
  tile.canvas.setAttribute("aria-label", `${tile.source}, frame ${header.index}, ${settings.mode}`);
  signal(tile);
}

/** Say so on the picture if a source gives nothing. */
function signal(tile) {
  const { header } = tile;
  if (!header) return;
  const quietMs = performance.now() - tile.shownAt;
  if (header.lost_s !== null)
    tile.say(`No signal, ${Math.round(header.lost_s + quietMs / 1000)} s`, "The picture is the last one. It goes on when the camera is back.");
  else if (!paused && $("state").dataset.state === "live" && quietMs > SILENT_MS)
    tile.say(`No new frame for ${Math.round(quietMs / 1000)} s`);
  else
    tile.say("");
}

function onState(state) {
  const texts = {
    connecting: "Connecting", live: paused ? "Paused" : "Live", lost: "Connecting again",
    refused: "This link is no longer valid: open the one that edgeseg printed",
  };
  $("state").dataset.state = state === "live" && paused ? "paused" : state;
  if ($("state").lastChild.textContent !== texts[state]) $("state").lastChild.textContent = texts[state];
  document.body.classList.toggle("stale", state === "lost" || state === "refused");
}

function onHover(tile, event) {
  tip = tile && { tile, x: event.clientX, y: event.clientY };
  showTip();
}

function showTip() {
  const found = tip?.tile.at(tip.x, tip.y);
  $("tip").hidden = !found;
  if (!found) return;
  const { names, palette } = hello.labels;
  const name = names[found.id] ?? "Void";
  const engine = settings.engines.length > 1 ? ` · ${found.engine}` : "";
  const swatch = document.createElement("i");
  if (palette[found.id]) swatch.style.background = `rgb(${palette[found.id].join(" ")})`;
  const text = document.createElement("span");
  text.textContent = `${name}, ${percent(found.share)} of the picture${engine}`;
  $("tip").replaceChildren(swatch, text);
  const { offsetWidth: width, offsetHeight: height } = $("tip");
  $("tip").style.left = `${Math.max(4, Math.min(tip.x + 14, innerWidth - width - 4))}px`;
  $("tip").style.top = `${tip.y + 18 + height > innerHeight ? tip.y - height - 10 : tip.y + 18}px`;
}

function pause() {
  paused = !paused;
  held = paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  const { state } = $("state").dataset;
  onState(state === "paused" ? "live" : state);
}

async function take() {
  const tile = main();
  if (tile?.header) save(await snapshot(tile, hello.labels));
}

function turnTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = settings.theme || (dark ? "dark" : "light");
  change({ theme: now === "dark" ? "light" : "dark" });
  curves.draw();
}

function nextEngine() {
  const { engines } = hello;
  if (engines.length < 2) return;
  const next = engines[(engines.indexOf(settings.engineA) + 1) % engines.length];
  pickEngine("engineA", "engineB", next);
}

/** Choose an engine for one side; if the other side has it, the two change places. */
function pickEngine(side, other, name) {
  change({ [side]: name, [other]: settings[other] === name ? settings[side] : settings[other] });
}

function nextSource() {
  const choices = [...sourceChoice.buttons.keys()];
  pick(choices[(choices.indexOf(settings.source) + 1) % choices.length]);
}

const opacity = (step) => change({ opacity: Math.min(1, Math.max(0, settings.opacity + step)) });

// Keys: [keys, text, action].
const KEYS = [
  ...MODES.map(({ value, text, key }) => [[key], text, () => change({ mode: value })]),
  [["[", "-"], "Less colour", () => opacity(-0.05)],
  [["]", "+"], "More colour", () => opacity(0.05)],
  [["e"], "Next engine", nextEngine],
  [["c"], "Compare two engines", () => hello.engines.length > 1 && change({ compare: !settings.compare })],
  [["n"], "Next source", nextSource],
  [["a"], "All classes", () => onClass("all")],
  [["s"], "Snapshot", take],
  [[" ", "p"], "Hold the picture", pause],
  [["t"], "Light or dark", turnTheme],
  [["?", "h"], "These keys", () => $("help").showModal()],
];

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !hello || $("help").open) return;
  const pressing = event.key === " " && event.target.closest("button, input");
  if (event.target.closest("select") || pressing) return;
  const found = KEYS.find(([keys]) => keys.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key));
  if (!found) return;
  event.preventDefault();
  found[2]();
});

for (const [keys, text] of KEYS) {
  const row = $("keys").insertRow();
  const cell = row.insertCell();
  for (const key of keys) {
    const cap = document.createElement("kbd");
    cap.textContent = key === " " ? "space" : key.toUpperCase();
    cell.append(cap, " ");
  }
  row.insertCell().textContent = text;
}

$("opacity").addEventListener("input", (event) => change({ opacity: event.target.value / 100 }));
$("engine-a").addEventListener("change", (event) => pickEngine("engineA", "engineB", event.target.value));
$("engine-b").addEventListener("change", (event) => pickEngine("engineB", "engineA", event.target.value));
$("compare").addEventListener("change", (event) => change({ compare: event.target.checked }));
$("all").addEventListener("click", () => onClass("all"));
$("none").addEventListener("click", () => onClass("none"));
$("pause").addEventListener("click", pause);
$("snapshot").addEventListener("click", take);
$("theme").addEventListener("click", turnTheme);
$("help-open").addEventListener("click", () => $("help").showModal());
setInterval(() => { for (const tile of tiles.values()) signal(tile); }, 500);

// The cookie holds the token now: it need not stand in the address, where others may read it.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);
apply();

// The page: what is asked for, and what is shown. Every search replaces the one before it.

import * as api from "./api.js";
import { BoxEditor, describe } from "./box.js";
import { titleOf } from "./facts.js";
import { Filters } from "./filters.js";
import { prepare, watchForPhotos } from "./photo.js";
import { card, loadPicture, openProduct, showCoverage, showSummary, showWaiting } from "./results.js";

const PAGE_SIZE = 24;
const BOX_DELAY_MS = 250;

const $ = (id) => document.getElementById(id);
const grid = $("grid");

/** What is searched by: { kind: "photo", blob, url, mode, box } | { kind: "product", product } | { kind: "words" }. */
let subject = null;
let answer = null;
let shown = 0;
let searching = null;
let boxTimer = 0;
let collection = "";

const editor = new BoxEditor($("stage"), $("box"), (box, settled) => {
  Object.assign(subject, { mode: "box", box });
  showMode();
  clearTimeout(boxTimer);
  if (settled) {
    say(`Box: ${describe(box)}`);
    boxTimer = setTimeout(search, BOX_DELAY_MS);
  }
});

const filters = new Filters(
  {
    whole: $("filters"),
    facets: $("facets"),
    price: $("price"),
    low: $("price-low"),
    high: $("price-high"),
    lineForm: $("line-form"),
    line: $("line"),
    error: $("line-error"),
    count: $("filter-count"),
    clear: [$("clear-filters"), $("empty-clear")],
  },
  () => subject && search(),
);

// --- what is searched by

async function usePhoto(file) {
  let photo;
  try {
    photo = await prepare(file);
  } catch (error) {
    showError({ title: "Not a picture", detail: error.message });
    return;
  }
  go({ kind: "photo", blob: photo.blob, url: URL.createObjectURL(photo.blob), mode: "auto", box: null });
}

function useProduct(product) {
  go({ kind: "product", product });
}

/** Searches by something new, and lets the browser's Back return to what was before. */
function go(next) {
  history[subject ? "pushState" : "replaceState"]({ at: visited.push(next) - 1 }, "");
  show(next);
  $("results").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

const visited = [];

addEventListener("popstate", (event) => {
  const before = visited[event.state?.at];
  if (before) show(before);
});

function show(next) {
  subject = next;
  document.body.dataset.view = "results";
  $("drop").hidden = next.kind === "photo" || next.kind === "product";
  $("photo").hidden = next.kind !== "photo";
  $("like").hidden = next.kind !== "product";
  $("words-label").textContent = next.kind === "words" ? "Words" : "Add words";
  if (next.kind === "photo") {
    $("shown").src = next.url;
    $("shown").alt = "Your photo";
    showMode();
  }
  if (next.kind === "product") {
    $("like-title").textContent = titleOf(next.product);
    loadPicture($("like-picture"), next.product.image_url, 160, $("like-picture"));
    $("back").hidden = visited.length < 2;
  }
  search();
}

function showMode() {
  const { mode, box } = subject;
  editor.show(mode === "whole" ? null : box);
  $("box").classList.toggle("found", mode === "auto");
  $("use-subject").setAttribute("aria-pressed", String(mode === "auto"));
  $("use-whole").setAttribute("aria-pressed", String(mode === "whole"));
  $("use-box").setAttribute("aria-pressed", String(mode === "box"));
  const told = {
    auto: box ? "Searched by what stands out. Drag the box to change it." : "Searched by the whole photo.",
    whole: "Searched by the whole photo.",
    box: "Searched by the part in the box.",
  };
  $("box-told").textContent = told[mode];
}

function setMode(mode, box = null) {
  Object.assign(subject, { mode, box });
  showMode();
  search();
}

// --- searching

function request(pageToken) {
  const query = [];
  if (subject.kind === "photo") {
    const part = { image: "image" };
    if (subject.mode === "box") part.box = subject.box;
    if (subject.mode === "auto") part.auto_crop = true;
    query.push(part);
  }
  if (subject.kind === "product") {
    query.push({ stored: { product_id: subject.product.product_id, image_id: subject.product.image_id } });
  }
  const words = $("words").value.trim();
  if (words) query.push({ text: words });
  return {
    collection,
    query,
    k: PAGE_SIZE,
    filter_text: filters.text,
    facets: filters.asked,
    explain: true,
    page_token: pageToken,
  };
}

async function search() {
  if (subject.kind === "words" && !$("words").value.trim()) return;
  const began = performance.now();
  const found = await run("", grid.querySelector("article") ? null : () => showWaiting(grid));
  if (!found) return;
  grid.replaceChildren();
  shown = 0;
  add(found);
  const told = showSummary(found, shown, performance.now() - began);
  showCoverage(found);
  filters.show(found);
  if (subject.kind === "photo" && subject.mode === "auto") {
    subject.box = found.subject;
    showMode();
  }
  $("empty").hidden = shown > 0;
  $("empty-hint").textContent = filters.count
    ? "No product passes the filters."
    : "Try another part of the photo, or other words.";
  say(shown ? `${told}. Best: ${titleOf(found.results[0])}.` : "Nothing found.");
}

async function showMore() {
  const found = await run(answer.next_page_token);
  if (!found) return;
  const first = add(found);
  showCoverage(found);
  say(`${found.results.length} more products.`);
  first?.querySelector("button").focus();
}

/** Asks for an answer, unless something newer is asked meanwhile; failures are shown. */
async function run(pageToken, whileWaiting) {
  searching?.abort();
  const mine = (searching = new AbortController());
  clearErrors();
  whileWaiting?.();
  $("results").setAttribute("aria-busy", "true");
  try {
    const found = await api.search(request(pageToken), subject.kind === "photo" ? subject.blob : null, mine.signal);
    answer = found;
    return found;
  } catch (error) {
    if (error.status === 401) signIn(error);
    else if (error.name !== "AbortError") fail(error, Boolean(pageToken));
    return null;
  } finally {
    if (mine === searching) $("results").removeAttribute("aria-busy");
  }
}

function add(found) {
  const cards = found.results.map((product) => card(product, { open, like: useProduct, vote }));
  grid.append(...cards);
  shown += cards.length;
  $("more").hidden = !found.next_page_token;
  return cards[0];
}

// --- what goes wrong

function fail(problem, keepResults) {
  const line = problem.about?.("filter_text");
  const words = problem.violations?.find((each) => /^query(\[\d+\])?\.text$|^text$/.test(each.field))?.description;
  if (line) {
    filters.showError(line);
    say(`The filter line is wrong: ${$("line-error").textContent}`);
    $("line").focus();
  } else if (words) {
    $("words-error").textContent = words;
    $("words-error").hidden = false;
    $("words").setAttribute("aria-invalid", "true");
  } else {
    showError(problem);
  }
  grid.querySelectorAll(".waiting").forEach((each) => each.remove());
  if (!keepResults && !line) {
    grid.replaceChildren();
    for (const id of ["summary", "banner", "empty", "more"]) $(id).hidden = true;
  }
}

const TITLES = { 0: "No connection", 400: "That did not work", 429: "Very busy", 503: "Not available", 504: "Too slow" };

function showError({ status, title, detail, requestId }) {
  document.body.dataset.view = "results";
  $("error-title").textContent = TITLES[status] ?? title ?? "That did not work";
  $("error-detail").textContent = detail;
  $("error-id").textContent = requestId ? `Request ${requestId}` : "";
  $("retry").hidden = !subject;
  $("error").hidden = false;
}

function clearErrors() {
  filters.showError("");
  $("words-error").hidden = true;
  $("words").removeAttribute("aria-invalid");
  for (const id of ["error", "empty"]) $(id).hidden = true;
}

/** Asks for a token, and tries again with it. */
function signIn({ detail }) {
  grid.querySelectorAll(".waiting").forEach((each) => each.remove());
  $("token-error").textContent = $("token").value ? detail : "";
  $("token-error").hidden = !$("token").value;
  if (!$("sign-in").open) $("sign-in").showModal();
}

$("sign-in-form").addEventListener("submit", () => {
  api.useToken($("token").value.trim());
  start();
  if (subject) search();
});

// --- one product

function open(product) {
  openProduct(product, useProduct, api.pictures(answer.collection, product.product_id));
  api.feedback(answer.query_id, product.product_id, "view").catch(() => {}); // looking is free of errors
}

async function vote(product, way) {
  try {
    await api.feedback(answer.query_id, product.product_id, way === "up" ? "click" : "reject");
  } catch (error) {
    const kept = error.status !== 409 && error.status !== 501;
    toast(kept ? `Not recorded: ${error.detail}` : "This gateway keeps no feedback.");
    if (!kept) document.body.classList.add("no-feedback");
    return false;
  }
  toast(way === "up" ? "Noted: this fits." : "Noted: this does not fit.");
  return true;
}

// --- telling

function say(text) {
  $("live").textContent = text;
}

let toastTimer = 0;

function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 4000);
}

// --- start

async function start() {
  try {
    const { collections } = await api.status();
    collection = collections[0]?.name ?? "";
    $("collection").replaceChildren(...collections.map((each) => new Option(each.name, each.name)));
    $("collection-choice").hidden = collections.length < 2;
    const showSize = () => {
      const chosen = collections.find((each) => each.name === collection);
      $("size").textContent = chosen ? `${chosen.products.toLocaleString()} products` : "No catalogue yet";
    };
    $("collection").onchange = () => {
      collection = $("collection").value;
      showSize();
      if (subject) search();
    };
    showSize();
  } catch (problem) {
    if (problem.status === 401) signIn(problem);
    else showError(problem);
  }
}

watchForPhotos({ file: $("file"), camera: $("camera"), overlay: $("overlay") }, usePhoto);
$("choose").addEventListener("click", () => $("file").click());
$("take").addEventListener("click", () => $("camera").click());
$("another").addEventListener("click", () => $("file").click());
$("new-photo").addEventListener("click", () => $("file").click());
$("back").addEventListener("click", () => history.back());
$("use-subject").addEventListener("click", () => setMode("auto"));
$("use-whole").addEventListener("click", () => setMode("whole"));
$("use-box").addEventListener("click", () => {
  setMode("box", subject.box ?? { x: 0.2, y: 0.2, width: 0.6, height: 0.6 });
  $("box").focus();
});
$("words-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (subject) search();
  else if ($("words").value.trim()) go({ kind: "words" });
});
$("words").addEventListener("search", () => subject && subject.kind !== "words" && search()); // cleared by its cross
$("more").addEventListener("click", showMore);
$("retry").addEventListener("click", search);
if (matchMedia("(min-width: 60rem)").matches) $("filters").open = true;
start();

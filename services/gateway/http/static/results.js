// The answer: products as cards, what the answer is worth, and one product in full.

import { pictureSource } from "./api.js";
import { factsOf, inStock, priceOf, scoreOf, titleOf, written } from "./facts.js";

const $ = (id) => document.getElementById(id);

const DENSITY = Math.min(Math.ceil(devicePixelRatio), 2);

/** Loads a product's picture into an image element, `width` CSS pixels across. */
export async function loadPicture(image, url, width, frame = image.parentElement) {
  const missing = () => frame.classList.add("missing");
  frame.classList.remove("missing");
  image.onerror = missing;
  if (!url) return missing();
  try {
    image.src = await pictureSource(`${url}?width=${width * DENSITY}`);
  } catch {
    missing();
  }
}

/** Returns the list item of one product; `on` hears of `open`, `like` and `vote`. */
export function card(product, on) {
  const item = $("card").content.cloneNode(true).querySelector("li");
  const title = titleOf(product);
  const find = (selector) => item.querySelector(selector);
  const frame = find(".picture");
  frame.setAttribute("aria-label", `${title}: details`);
  loadPicture(find("img"), product.image_url, 320);
  frame.addEventListener("click", () => on.open(product, frame));
  find("h3").textContent = title;
  find("h3").title = title;
  find(".price").textContent = priceOf(product);
  const stocked = inStock(product);
  if (stocked === undefined) find(".stock").remove();
  else {
    find(".stock").textContent = stocked ? "In stock" : "Sold out";
    find(".stock").classList.toggle("out", !stocked);
  }
  const score = find(".score");
  score.textContent = scoreOf(product.score);
  score.setAttribute("aria-label", `Score ${scoreOf(product.score)}`);
  find(".bar i").style.width = `${Math.min(Math.max(product.score, 0), 1) * 100}%`;
  const like = find(".more-like");
  like.setAttribute("aria-label", `Similar to ${title}`);
  like.addEventListener("click", () => on.like(product));
  const votes = { up: find(".up"), down: find(".down") };
  votes.up.setAttribute("aria-label", `${title} fits`);
  votes.down.setAttribute("aria-label", `${title} does not fit`);
  for (const [way, button] of Object.entries(votes)) {
    button.title = way === "up" ? "This fits" : "This does not fit";
    button.addEventListener("click", async () => {
      if (button.getAttribute("aria-pressed") === "true" || !(await on.vote(product, way))) return;
      for (const [other, each] of Object.entries(votes)) each.setAttribute("aria-pressed", String(other === way));
      item.classList.toggle("rejected", way === "down");
    });
  }
  return item;
}

const REASONS = {
  shard_failed: "a part of the index did not answer",
  shard_timed_out: "a part of the index was too slow",
  shard_skipped: "a part of the index is away",
  text_incomplete: "the words counted in part only",
  stage_skipped: "time was too short to rank in full",
};

/** Shows how complete an answer is, or that it is. */
export function showCoverage({ coverage, degraded }) {
  const banner = $("banner");
  banner.hidden = !degraded.length;
  if (!degraded.length) return;
  const { shards_answered: answered, shards_total: total } = coverage;
  const reasons = degraded.map((each) => REASONS[each] ?? each.replaceAll("_", " ")).join("; ");
  banner.textContent =
    answered < total
      ? `${answered} of ${total} shards answered: results may be missing (${reasons}).`
      : `This answer is less than it could be: ${reasons}.`;
}

const plural = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? "" : "s"}`;

/** Shows how many, how fast, out of what; returns it as a sentence. */
export function showSummary(answer, shown, milliseconds) {
  const { coverage } = answer;
  const told = `${answer.next_page_token ? "First " : ""}${plural(shown, "product")}`;
  const line = $("told");
  const strong = document.createElement("strong");
  strong.textContent = told;
  const rest = ` in ${Math.round(milliseconds)} ms, out of ${plural(coverage.points, "picture")}`;
  line.replaceChildren(strong, rest);
  const longest = Math.max(...answer.timings.map((each) => each.seconds), 1e-6);
  $("stages").replaceChildren(
    ...answer.timings.flatMap(({ stage, seconds }) => {
      const term = document.createElement("dt");
      term.textContent = stage;
      const detail = document.createElement("dd");
      const bar = document.createElement("span");
      bar.className = "bar";
      const fill = document.createElement("i");
      fill.style.width = `${(seconds / longest) * 100}%`;
      bar.append(fill);
      detail.append(bar, ` ${(seconds * 1000).toFixed(1)} ms`);
      return [term, detail];
    }),
  );
  $("origin").textContent =
    `${coverage.shards_answered} of ${plural(coverage.shards_total, "shard")} answered. ` +
    `Embed covers decode, queue and model. Search ${answer.query_id}, model ${answer.fingerprint.slice(0, 12)}.`;
  $("summary").hidden = false;
  return `${told} found`;
}

/** Shows placeholders while the first answer is awaited. */
export function showWaiting(grid, count = 8) {
  grid.replaceChildren(
    ...Array.from({ length: count }, () => {
      const item = document.createElement("li");
      item.className = "waiting";
      item.setAttribute("aria-hidden", "true");
      return item;
    }),
  );
}

/** Opens one product in full; `like` is called where more like it are wanted, `pictures` are those that are coming. */
export async function openProduct(product, like, pictures) {
  const dialog = $("product");
  $("product-title").textContent = titleOf(product);
  const show = (url) => loadPicture($("product-picture"), url, 480);
  show(product.image_url);
  $("product-images").replaceChildren();
  const stocked = inStock(product);
  const facts = [
    ["Price", priceOf(product)],
    ["Stock", stocked === undefined ? "" : stocked ? "In stock" : "Sold out"],
    ["Score", scoreOf(product.score)],
    ...product.explanation.map((each) => [`by ${each.stage}`, `${scoreOf(each.score)} ${each.note}`]),
    ["Product", product.product_id],
    ...factsOf(product),
  ];
  $("product-facts").replaceChildren(
    ...facts
      .filter(([, text]) => text !== "")
      .flatMap(([name, text]) => {
        const term = document.createElement("dt");
        term.textContent = name;
        const detail = document.createElement("dd");
        detail.textContent = written(text);
        return [term, detail];
      }),
  );
  $("product-like").onclick = () => {
    dialog.close();
    like(product);
  };
  dialog.showModal();
  const all = await pictures.catch(() => []); // the one that matched is shown already
  $("product-images").replaceChildren(
    ...(all.length > 1 ? all : []).map((url, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Picture ${index + 1} of ${all.length}`);
      const image = document.createElement("img");
      image.alt = "";
      button.append(image);
      loadPicture(image, url, 80);
      button.addEventListener("click", () => show(url));
      return button;
    }),
  );
}

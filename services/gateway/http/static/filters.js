// Filters: facets to tick, a price range and a line to write, made into the one line that the gateway reads.

import { label, written } from "./facts.js";

const USUAL = ["category", "brand", "colour", "color", "material", "size", "condition", "seller", "in_stock", "tags"];
const SHOWN = 6;
const MOST_ASKED = 16;

const attribute = (name) => (/^[A-Za-z_][\w.-]*$/.test(name) ? name : `\`${name}\``);
const quoted = (text) =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n").replaceAll("\r", "\\r")}"`;
const literal = (value) => (typeof value === "string" ? quoted(value) : String(value));

export class Filters {
  constructor(elements, changed) {
    this.elements = elements;
    this.changed = changed;
    this.chosen = new Map(); // attribute -> Map(literal -> value)
    this.known = new Map(); // attribute -> its values when nothing of it was chosen
    this.open = new Set();
    this.line = "";
    elements.lineForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#takeLine();
    });
    elements.line.addEventListener("change", () => this.#takeLine());
    for (const input of [elements.low, elements.high]) input.addEventListener("change", () => this.#tell());
    for (const button of elements.clear) button.addEventListener("click", () => this.clear());
  }

  /** The attributes to count. */
  get asked() {
    return [...new Set([...this.chosen.keys(), ...USUAL])].slice(0, MOST_ASKED);
  }

  get count() {
    const ticked = [...this.chosen.values()].reduce((sum, each) => sum + each.size, 0);
    return ticked + this.#prices().length + (this.line ? 1 : 0);
  }

  /** The filter as one line; empty: none. What the user wrote comes first, so that positions in it stay right. */
  get text() {
    const parts = [...this.chosen].map(([name, values]) => {
      const literals = [...values.keys()];
      return literals.length === 1
        ? `${attribute(name)} = ${literals[0]}`
        : `${attribute(name)} in (${literals.join(", ")})`;
    });
    parts.push(...this.#prices());
    if (!parts.length) return this.line;
    return (this.line ? [`(${this.line})`, ...parts] : parts).join(" and ");
  }

  clear() {
    this.chosen.clear();
    this.line = this.elements.line.value = "";
    this.elements.low.value = this.elements.high.value = "";
    this.showError("");
    this.#tell();
  }

  /** Shows what is wrong with the line; empty: nothing is. */
  showError(told) {
    const shift = this.text.startsWith("(") && this.text !== this.line ? 1 : 0;
    const text = told.replace(/^filter_text,? ?/, "").replace(/character (\d+)/, (_, at) => `character ${at - shift}`);
    this.elements.error.textContent = text && text.charAt(0).toUpperCase() + text.slice(1);
    this.elements.error.hidden = !text;
    this.elements.line.toggleAttribute("aria-invalid", Boolean(text));
    if (text) this.elements.whole.open = true;
  }

  /** Shows the facets of an answer. */
  show(answer) {
    for (const facet of answer.facets) {
      if (!this.chosen.has(facet.attribute)) this.known.set(facet.attribute, facet.values);
    }
    const there = new Set([...answer.facets.map((each) => each.attribute), ...this.chosen.keys()]);
    const focused = document.activeElement?.dataset?.facet;
    this.elements.facets.replaceChildren(
      ...[...this.known]
        .filter(([name, values]) => there.has(name) && (values.length > 1 || this.chosen.has(name)))
        .map(([name, values]) => this.#facet(name, values)),
    );
    if (focused) {
      const again = [...this.elements.facets.querySelectorAll("[data-facet]")];
      again.find((each) => each.dataset.facet === focused)?.focus({ preventScroll: true });
    }
    const priced = answer.results.some((each) => typeof each.attributes.price === "number");
    this.elements.price.hidden = !priced && !this.#prices().length;
    this.#showCount();
  }

  #facet(name, values) {
    const set = document.createElement("fieldset");
    set.className = "facet";
    const legend = document.createElement("legend");
    legend.textContent = name === "tags" ? "Looks like" : label(name);
    set.append(legend);
    const all = this.open.has(name);
    const chosen = this.chosen.get(name) ?? new Map();
    values.forEach(({ value, count }, index) => {
      const key = literal(value);
      if (!all && index >= SHOWN && !chosen.has(key)) return;
      set.append(this.#choice(name, key, value, count, chosen.has(key)));
    });
    if (values.length > SHOWN) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "text";
      button.dataset.facet = `${name} more`;
      button.textContent = all ? "Show fewer" : `Show all ${values.length}`;
      button.setAttribute("aria-expanded", String(all));
      button.addEventListener("click", () => {
        if (!this.open.delete(name)) this.open.add(name);
        set.replaceWith(this.#facet(name, values));
      });
      set.append(button);
    }
    return set;
  }

  #choice(name, key, value, count, ticked) {
    const row = document.createElement("label");
    row.className = "choice";
    const input = document.createElement("input");
    input.type = "checkbox";
    input.checked = ticked;
    input.dataset.facet = `${name} ${key}`;
    input.addEventListener("change", () => {
      const values = this.chosen.get(name) ?? new Map();
      if (input.checked) values.set(key, value);
      else values.delete(key);
      if (values.size) this.chosen.set(name, values);
      else this.chosen.delete(name);
      this.#tell();
    });
    const text = document.createElement("span");
    text.textContent = name === "in_stock" && (value === 1 || value === 0) ? (value ? "yes" : "no") : written(value);
    const number = document.createElement("span");
    number.className = "count";
    number.textContent = count;
    row.append(input, text, number);
    return row;
  }

  #prices() {
    const { low, high } = this.elements;
    const parts = [];
    if (low.value !== "" && low.validity.valid) parts.push(`price >= ${Number(low.value)}`);
    if (high.value !== "" && high.validity.valid) parts.push(`price <= ${Number(high.value)}`);
    return parts;
  }

  #takeLine() {
    const line = this.elements.line.value.trim();
    if (line === this.line) return;
    this.line = line;
    this.#tell();
  }

  #tell() {
    this.#showCount();
    this.changed();
  }

  #showCount() {
    const count = this.count;
    this.elements.count.hidden = !count;
    this.elements.count.textContent = count;
    this.elements.count.setAttribute("aria-label", `${count} active`);
    for (const button of this.elements.clear) button.hidden = !count;
  }
}

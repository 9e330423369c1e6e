// What a catalogue says of a product, under the names catalogues use.

const TITLES = ["title", "name", "product_name"];
const STOCKS = ["in_stock", "available", "stock"];
const HIDDEN = new Set(["licence", "license"]);

const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const plain = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

export function titleOf(product) {
  const name = TITLES.find((each) => product.attributes[each]);
  return name ? String(product.attributes[name]) : product.product_id;
}

export function priceOf(product) {
  const { price, currency } = product.attributes;
  if (typeof price !== "number") return "";
  if (typeof currency === "string") {
    try {
      return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(price);
    } catch {
      // no currency that is known here
    }
  }
  return money.format(price);
}

/** Returns true, false, or undefined where the catalogue does not say. */
export function inStock(product) {
  const name = STOCKS.find((each) => each in product.attributes);
  const value = product.attributes[name];
  return typeof value === "boolean" ? value : typeof value === "number" ? value > 0 : undefined;
}

export function scoreOf(value) {
  return value.toFixed(2);
}

/** Writes an attribute value for people. */
export function written(value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "number") return plain.format(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return value;
}

/** Writes an attribute's name for people: `in_stock` as "In stock". */
export function label(name) {
  const words = name.replaceAll(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Returns [label, text] of everything worth a line. */
export function factsOf(product) {
  const skipped = new Set([...TITLES, "price", "currency", ...STOCKS]);
  return Object.keys(product.attributes)
    .filter((name) => !skipped.has(name))
    .sort((a, b) => HIDDEN.has(a) - HIDDEN.has(b) || a.localeCompare(b))
    .map((name) => [label(name), written(product.attributes[name])]);
}

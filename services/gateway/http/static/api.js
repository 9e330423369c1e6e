// Talks to the gateway. Every failure is a Problem: what the gateway told, or that it could not be reached.

export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", violations = [], request_id: requestId = "" }) {
    super(detail);
    Object.assign(this, { status, title, detail, violations, requestId });
  }

  /** What is wrong with one field of the request, or undefined. */
  about(field) {
    return this.violations.find((each) => each.field === field)?.description;
  }
}

const TOKEN = "vitrine-token";

/** Keeps an access token for this tab; empty: none. */
export function useToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

function authorized(headers = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...headers, authorization: `Bearer ${token}` } : headers;
}

/** Returns what an image element can load for a picture: its address, or its content where only a token opens it. */
export async function pictureSource(address) {
  if (!sessionStorage.getItem(TOKEN)) return address;
  const response = await fetch(address, { headers: authorized(), credentials: "omit" });
  if (!response.ok) throw new Problem({ status: response.status, detail: response.statusText });
  return URL.createObjectURL(await response.blob());
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: authorized(options.headers), credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No connection", detail: "The search service cannot be reached." });
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  let told = {};
  try {
    told = await response.json();
  } catch {
    told = { detail: response.statusText };
  }
  throw new Problem({ ...told, status: response.status });
}

export function status() {
  return ask("/v1/status");
}

/** Searches; `photo` is a Blob that parts of the request name as "image". */
export function search(request, photo, signal) {
  const body = new FormData();
  body.append("request", JSON.stringify(request));
  if (photo) body.append("image", photo, "photo");
  return ask("/v1/search", { method: "POST", body, signal });
}

/** Returns the addresses of all pictures of a product. */
export async function pictures(collection, productId) {
  const product = await ask(`/v1/products/${encodeURIComponent(collection)}/${encodeURIComponent(productId)}`);
  return product.images.map((each) => each.image_url).filter(Boolean);
}

export function feedback(queryId, productId, action) {
  const body = JSON.stringify({ query_id: queryId, product_id: productId, action });
  return ask("/v1/feedback", { method: "POST", body, headers: { "content-type": "application/json" } });
}

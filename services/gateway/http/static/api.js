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

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "omit" });
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

export function feedback(queryId, productId, action) {
  const body = JSON.stringify({ query_id: queryId, product_id: productId, action });
  return ask("/v1/feedback", { method: "POST", body, headers: { "content-type": "application/json" } });
}

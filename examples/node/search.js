// node search.js COLLECTION PHOTO: which products look like this photo?
// VITRINE_URL: the gateway (http://127.0.0.1:50050; https:// for TLS, with NODE_EXTRA_CA_CERTS for an authority of your
// own). VITRINE_TOKEN_FILE: a file with your token. VITRINE_TIMEOUT_MS: the deadline of a call.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { DegradedReason, VisualSearch } from "./gen/vitrine/v1/search_pb.js";

const url = process.env.VITRINE_URL || "http://127.0.0.1:50050";
const timeoutMs = Number(process.env.VITRINE_TIMEOUT_MS || 10_000);
const token = process.env.VITRINE_TOKEN_FILE && readFileSync(process.env.VITRINE_TOKEN_FILE, "utf8").trim();
if (token && !url.startsWith("https:") && new URL(url).hostname !== "127.0.0.1") {
  throw new Error("a token goes over TLS, or to this machine");
}
const headers = token ? { authorization: `Bearer ${token}` } : {};
const client = createClient(VisualSearch, createGrpcTransport({ baseUrl: url, defaultTimeoutMs: timeoutMs }));

// An overloaded gateway says when to come back; one that could not be reached did nothing. All else is final.
async function search(request, tries = 3) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await client.search(request, { headers, timeoutMs });
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      const advice = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
      const wait = advice ? Number(advice.seconds) * 1000 + advice.nanos / 1e6 : 100 * 2 ** attempt;
      const passing = error.code === Code.Unavailable || (error.code === Code.ResourceExhausted && advice);
      if (!passing || attempt === tries) throw error;
      await sleep(wait);
    }
  }
}

const [collection, photo] = process.argv.slice(2);
try {
  const answer = await search({
    collection,
    query: [{ query: { case: "image", value: readFileSync(photo) }, autoCrop: true }],
    k: 5,
  });
  for (const { rank, productId, score, attributes } of answer.results) {
    console.log(rank, productId, score.toFixed(3), attributes.title?.kind.value ?? "");
  }
  const { shardsAnswered, shardsTotal } = answer.coverage;
  console.log(`${shardsAnswered} of ${shardsTotal} shards answered`);
  if (answer.degraded.length) console.log("degraded:", ...answer.degraded.map((reason) => DegradedReason[reason]));
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  console.error(`${Code[error.code]}: ${error.rawMessage}`);
  process.exitCode = 1;
}

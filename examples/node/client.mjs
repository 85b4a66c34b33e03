// Teaches a fact over TLS with a token, watches it being learned, and asks the model.
//
//   node client.mjs ADDRESS QUESTION ANSWER
//
// Needs the .proto files alone (PROTO_DIR, by default ../../proto). TLS_CA names the CA of the
// server's certificate; without it the connection is plain text. AGENT_TOKEN holds the token;
// TLS_CERT and TLS_KEY are the client's own certificate, where the server asks for one.
// Prints one line of JSON; exit code 1 if the answer is not the taught one.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const DEADLINE_SECONDS = 120;
const SETTLED = ["LEARNED", "KNOWN", "RESISTED", "QUARANTINED"];

const protoFolder = process.env.PROTO_DIR ?? fileURLToPath(new URL("../../proto", import.meta.url));
const definition = protoLoader.loadSync(
  ["memory", "model"].map((name) => `continual/v1/${name}.proto`),
  { includeDirs: [protoFolder], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true },
);
const { MemoryService, ModelService } = grpc.loadPackageDefinition(definition).continual.v1;

function credentials() {
  const file = (name) => (process.env[name] ? readFileSync(process.env[name]) : null);
  if (!process.env.TLS_CA) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(file("TLS_CA"), file("TLS_KEY"), file("TLS_CERT"));
}

// Without TLS a proxy in the environment could read the token, and this machine needs none.
function channelOptions(address) {
  const local = /^(unix:|localhost:|127\.|\[::1\])/.test(address);
  return process.env.TLS_CA && !local ? {} : { "grpc.enable_http_proxy": 0 };
}

function metadata() {
  const sent = new grpc.Metadata();
  if (process.env.AGENT_TOKEN) sent.set("authorization", `Bearer ${process.env.AGENT_TOKEN}`);
  return sent;
}

function options() {
  return { deadline: Date.now() + DEADLINE_SECONDS * 1000 };
}

// A unary call as a promise.
function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata(), options(), (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

// Teaches, and follows the fact's events from before it was accepted until it is settled.
async function teach(memory, question, answer) {
  // The request id makes a repeated call safe: the same id teaches once.
  const request = { question, answer, request_id: randomUUID() };
  const accepted = await call(memory, "Teach", request);
  const watched = [];
  const events = memory.WatchEvents(
    { after_sequence: accepted.event_sequence, fact_ids: [accepted.fact.id] },
    metadata(),
    options(),
  );
  try {
    for await (const { event } of events) {
      const kind = event.kind.replace(/^EVENT_KIND_/, "");
      watched.push(kind);
      if (SETTLED.includes(kind)) break;
    }
  } finally {
    events.cancel();
  }
  return { accepted, watched };
}

async function ask(model, question) {
  let whole;
  for await (const piece of model.Ask({ question }, metadata(), options())) whole = piece;
  return whole;
}

async function main(address, question, answer) {
  const memory = new MemoryService(address, credentials(), channelOptions(address));
  const model = new ModelService(address, credentials(), channelOptions(address));
  try {
    const { accepted, watched } = await teach(memory, question, answer);
    const { fact } = await call(memory, "GetFact", { fact_id: accepted.fact.id });
    const said = await ask(model, question);
    console.log(
      JSON.stringify({
        fact_id: fact.id,
        state: fact.state.replace(/^FACT_STATE_/, "").toLowerCase(),
        watched,
        answer: said.answer,
        model_version: said.model_version,
      }),
    );
    return said.answer === answer ? 0 : 1;
  } finally {
    memory.close();
    model.close();
  }
}

const [address, question, answer] = process.argv.slice(2);
if (!answer) {
  console.error("usage: node client.mjs ADDRESS QUESTION ANSWER");
  process.exit(2);
}
try {
  process.exitCode = await main(address, question, answer);
} catch (error) {
  console.error(`error: ${error.details ?? error.message} (${grpc.status[error.code] ?? "-"})`);
  process.exitCode = 1;
}

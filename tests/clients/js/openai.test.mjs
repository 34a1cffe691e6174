// OpenAI's JavaScript client against a live fleet. Run by tests/integration/test_live_clients.py with `node --test`;
// BASE_URL and API_KEY say which fleet.

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const { BASE_URL, API_KEY } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Which ships are in port?" }];
const exactly = (n) => ({ max_tokens: n, ignore_eos: true }); // the small models speak noise: ask for a length
const SHIP = {
  type: "object",
  properties: { name: { type: "string" }, berth: { enum: ["north", "south"] } },
  required: ["name", "berth"],
  additionalProperties: false,
};

test("models are listed and retrieved", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ["qwen", "llama"]);
  assert.equal((await client.models.retrieve("qwen3")).id, "qwen");
});

test("a chat answer names its tokens and its cost", async () => {
  const { data, response } = await client.chat.completions
    .create({ model: "llama", messages, ...exactly(9) }).withResponse();
  assert.ok(data.choices[0].message.content);
  assert.equal(data.usage.completion_tokens, 9);
  assert.ok(data.usage.cost > 0);
  assert.equal(Number(response.headers.get("x-flotilla-cost-usd")), data.usage.cost);
  assert.match(response.headers.get("x-flotilla-request-id"), /^flo-[0-9a-f]{32}$/);
});

test("a stream comes in chunks and tells no usage that was not asked for", async () => {
  const stream = await client.chat.completions
    .create({ model: "qwen", messages, stream: true, ...exactly(12) });
  let text = "", last;
  for await (const chunk of stream) {
    text += chunk.choices[0].delta.content ?? "";
    assert.ok(!chunk.usage);
    last = chunk;
  }
  assert.ok(text);
  assert.equal(last.choices[0].finish_reason, "length");
});

test("a stream ends with its usage where it is asked for", async () => {
  const stream = await client.chat.completions.create({
    model: "qwen", messages, stream: true, stream_options: { include_usage: true }, ...exactly(12),
  });
  let last;
  for await (const chunk of stream) last = chunk;
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 12);
  assert.ok(last.usage.cost > 0);
});

test("the stream helper puts the answer together", async () => {
  const runner = client.chat.completions.stream({
    model: "qwen", messages, max_tokens: 400, temperature: 0,
    response_format: { type: "json_schema", json_schema: { name: "ship", schema: SHIP, strict: true } },
  });
  const ship = JSON.parse(await runner.finalContent());
  assert.deepEqual(Object.keys(ship).sort(), ["berth", "name"]);
  assert.ok(["north", "south"].includes(ship.berth));
});

test("a named tool is called", async () => {
  const answer = await client.chat.completions.create({
    model: "qwen", messages, max_tokens: 400, temperature: 0,
    tools: [{ type: "function", function: { name: "berth_of", parameters: SHIP } }],
    tool_choice: { type: "function", function: { name: "berth_of" } },
  });
  const call = answer.choices[0].message.tool_calls[0].function;
  assert.equal(call.name, "berth_of");
  assert.ok("berth" in JSON.parse(call.arguments));
});

test("a caller may leave a stream", async () => {
  const stream = await client.chat.completions
    .create({ model: "qwen", messages, stream: true, ...exactly(1000) });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 5) break; // the client closes the connection
  assert.equal(chunks, 5);
  const next = await client.chat.completions.create({ model: "qwen", messages, ...exactly(2) });
  assert.equal(next.usage.completion_tokens, 2);
});

test("a response is created, streamed, retrieved and continued", async () => {
  const made = await client.responses.create({ model: "qwen", input: "Count.", max_output_tokens: 8, ignore_eos: true });
  assert.ok(made.usage.cost > 0);
  const found = await client.responses.retrieve(made.id);
  assert.equal(found.id, made.id);
  assert.equal(found.output_text, made.output_text);
  const stream = await client.responses.create({
    model: "qwen", input: "And on.", previous_response_id: made.id, max_output_tokens: 8, stream: true,
  });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  assert.equal(kinds[0], "response.created");
  assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
});

test("errors have the classes that clients catch", async () => {
  const stranger = new OpenAI({ baseURL: BASE_URL, apiKey: "flt_no", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), (e) => e instanceof OpenAI.AuthenticationError
    && e.code === "invalid_api_key");
  await assert.rejects(client.chat.completions.create({ model: "lama", messages }), (e) =>
    e instanceof OpenAI.NotFoundError && e.message.includes("llama"));
  await assert.rejects(client.chat.completions.create({ model: "qwen", messages, max_tokens: -1 }),
    OpenAI.BadRequestError);
  await assert.rejects(client.embeddings.create({ model: "qwen", input: "no embeddings here" }), (e) =>
    e instanceof OpenAI.APIError && e.status >= 400 && e.status < 500 && Boolean(e.message));
});

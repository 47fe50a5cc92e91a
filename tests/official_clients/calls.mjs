// Calls a model through the official client in every way that matters, and prints what came back, a line each.
// node calls.mjs BASE_URL API_KEY
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "three and four?" }];
const parameters = { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } };
const tools = [{ type: "function", function: { name: "add", parameters } }];
const flatTools = [{ type: "function", name: "add", parameters, strict: false }];

async function all(stream) {
  const seen = [];
  for await (const event of stream) seen.push(event);
  return seen;
}

const chat = { model: "gpt", messages, tools };
const responses = { model: "gpt", input: "three and four?", tools: flatTools };
const ways = {
  chat: () => client.chat.completions.create(chat),
  chat_stream: async () => all(await client.chat.completions.create({ ...chat, stream: true })),
  chat_stream_helper: () => client.chat.completions.stream(chat).finalChatCompletion(),
  responses: () => client.responses.create(responses),
  responses_stream: async () => all(await client.responses.create({ ...responses, stream: true })),
  models: async () => all(await client.models.list()),
};
for (const [way, call] of Object.entries(ways)) console.log(JSON.stringify({ way, answer: await call() }));

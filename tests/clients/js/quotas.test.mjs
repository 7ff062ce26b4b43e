// The official JavaScript client of a tenant with quotas: the errors that it raises.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ChromaClient, ChromaQuotaExceededError, ChromaRateLimitError } from "chromadb";

const url = new URL(process.env.SERVER_URL);
const { KEY, TENANT } = process.env;
const headers = { "x-chroma-token": KEY };
const client = new ChromaClient({
  host: url.hostname, port: Number(url.port), ssl: false, tenant: TENANT, database: "main", headers,
});

test("a quota and a rate have errors of their own", async () => {
  await assert.rejects(client.createCollection({ name: "second", embeddingFunction: null }), ChromaQuotaExceededError);
  const collection = await client.getCollection({ name: "items" });
  await assert.rejects(async () => {
    for (let call = 0; call < 20; call++) await collection.count();
  }, ChromaRateLimitError);
});

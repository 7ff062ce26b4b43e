// The official JavaScript client with keys: each header, and the errors that it raises.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ChromaClient, ChromaForbiddenError, ChromaNotFoundError, ChromaUnauthorizedError } from "chromadb";

const url = new URL(process.env.SERVER_URL);
const { READ_KEY, WRITE_KEY, TOKEN, USER_AND_PASSWORD, TENANT } = process.env;
const where = { host: url.hostname, port: Number(url.port), ssl: false };
const at = { ...where, tenant: TENANT, database: "main" };

test("a key is taken in either header", async () => {
  for (const headers of [{ "x-chroma-token": WRITE_KEY }, { Authorization: `Bearer ${WRITE_KEY}` }]) {
    const client = new ChromaClient({ ...at, headers });
    const collection = await client.getCollection({ name: "items" });
    await collection.upsert({ ids: ["js"], embeddings: [[1, 1]] });
    assert.ok((await collection.count()) >= 1);
  }
});

test("a token, or a name and a password, is taken where a key is, and may do what its scope says", async () => {
  const basic = Buffer.from(USER_AND_PASSWORD).toString("base64");
  for (const headers of [
    { Authorization: `Bearer ${TOKEN}` },
    { "x-chroma-token": TOKEN },
    { Authorization: `Basic ${basic}` },
  ]) {
    const client = new ChromaClient({ ...at, headers });
    const collection = await client.getCollection({ name: "items" });
    assert.ok((await collection.count()) >= 1);
    await assert.rejects(collection.add({ ids: ["no"], embeddings: [[1, 1]] }), ChromaForbiddenError);
  }
});

test("contradicting headers are refused", async () => {
  const headers = { Authorization: `Bearer ${WRITE_KEY}`, "x-chroma-token": READ_KEY };
  await assert.rejects(new ChromaClient({ ...at, headers }).listCollections(), ChromaUnauthorizedError);
});

// As the CloudClient, which insists on TLS, leaves them to the server.
class UnplacedClient extends ChromaClient {
  constructor(args) {
    super(args);
    this.tenant = undefined;
    this.database = undefined;
  }
}

test("tenant and database are those of the key", async () => {
  const client = new UnplacedClient({ ...where, headers: { "x-chroma-token": READ_KEY } });
  assert.ok((await client.listCollections()).some((collection) => collection.name === "items"));
});

test("what is refused, denied or hidden raises the client's own errors", async () => {
  const nobody = new ChromaClient(at);
  await assert.rejects(nobody.listCollections(), ChromaUnauthorizedError);
  const reader = new ChromaClient({ ...at, headers: { "x-chroma-token": READ_KEY } });
  await assert.rejects(reader.createCollection({ name: "more", embeddingFunction: null }), ChromaForbiddenError);
  const stranger = new ChromaClient({ ...at, tenant: "default_tenant", headers: { "x-chroma-token": READ_KEY } });
  await assert.rejects(stranger.getCollection({ name: "items" }), ChromaNotFoundError);
});

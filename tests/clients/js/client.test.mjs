// The official JavaScript client, end to end and unchanged. The server's URL comes in SERVER_URL.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import {
  AdminClient,
  ChromaClient,
  ChromaNotFoundError,
  ChromaUniqueError,
  K,
  Knn,
  Rrf,
  Schema,
  Search,
  SparseVectorIndexConfig,
} from "chromadb";

const url = new URL(process.env.SERVER_URL);
const where = { host: url.hostname, port: Number(url.port), ssl: false };
const client = new ChromaClient(where);

const IDS = ["a", "b", "c", "d"];
const EMBEDDINGS = [
  [1, 0, 0],
  [0, 1, 0],
  [0, 0, 1],
  [0.5, 0.5, 0],
];
const DOCUMENTS = ["an apple", "a banana", "a cherry", "a date"];
const METADATAS = [{ n: 1 }, { n: 2, kind: "berry" }, { n: 3.5 }, { ripe: true }];

const fresh = () => `js-${randomUUID()}`;

async function filled(name = fresh()) {
  const collection = await client.createCollection({ name, embeddingFunction: null });
  await collection.add({ ids: IDS, embeddings: EMBEDDINGS, documents: DOCUMENTS, metadatas: METADATAS });
  return collection;
}

test("the server says who and what it is", async () => {
  assert.ok((await client.heartbeat()) > 0);
  assert.equal(await client.version(), "1.0.0");
  assert.ok((await client.getMaxBatchSize()) > 0);
  assert.equal((await client.getUserIdentity()).tenant, "default_tenant");
});

test("records come back as they were added", async () => {
  const got = await (await filled()).get({ include: ["embeddings", "documents", "metadatas", "uris"] });
  assert.deepEqual(got.ids, IDS);
  assert.deepEqual(got.embeddings, EMBEDDINGS);
  assert.deepEqual(got.documents, DOCUMENTS);
  assert.deepEqual(got.metadatas, METADATAS);
});

test("a query finds the nearest first and obeys its filters", async () => {
  const collection = await filled();
  const plain = await collection.query({ queryEmbeddings: [[1, 0.1, 0], [0, 0, 2]], nResults: 2 });
  assert.deepEqual(plain.ids[0], ["a", "d"]);
  assert.equal(plain.ids[1][0], "c");
  assert.ok(Math.abs(plain.distances[0][0] - 0.01) < 1e-5);
  const one = { queryEmbeddings: [[1, 0, 0]], nResults: 10 };
  assert.deepEqual((await collection.query({ ...one, where: { n: { $gt: 2 } } })).ids, [["c"]]);
  assert.deepEqual((await collection.query({ ...one, whereDocument: { $contains: "banana" } })).ids, [["b"]]);
  assert.deepEqual((await collection.query({ ...one, ids: ["c", "a"] })).ids, [["a", "c"]]);
});

test("get filters and pages in insertion order", async () => {
  const collection = await filled();
  assert.deepEqual((await collection.get({ limit: 2, offset: 1 })).ids, ["b", "c"]);
  assert.deepEqual((await collection.get({ where: { $or: [{ n: 1 }, { ripe: true }] } })).ids, ["a", "d"]);
  assert.deepEqual((await collection.peek({ limit: 1 })).ids, ["a"]);
  assert.equal(await collection.count(), 4);
});

test("update, upsert and delete", async () => {
  const collection = await filled();
  await collection.update({ ids: ["a", "nobody"], metadatas: [{ n: 10 }, { n: 11 }] });
  assert.deepEqual((await collection.get({ ids: ["a", "nobody"] })).metadatas, [{ n: 10 }]);
  await collection.upsert({ ids: ["a", "e"], embeddings: [[9, 9, 9], [8, 8, 8]], documents: ["apricot", "elder"] });
  assert.deepEqual((await collection.get({ ids: ["a", "e"] })).documents, ["apricot", "elder"]);
  await collection.delete({ ids: ["a", "b"] });
  await collection.delete({ where: { ripe: true } });
  assert.deepEqual((await collection.get()).ids, ["c", "e"]);
});

test("collections are listed, renamed and deleted", async () => {
  const name = fresh();
  const collection = await filled(name);
  assert.ok((await client.listCollections({ limit: 100000 })).some((one) => one.name === name));
  await collection.modify({ name: `${name}-new`, metadata: { owner: "me" } });
  const renamed = await client.getCollection({ name: `${name}-new` });
  assert.equal(renamed.id, collection.id);
  assert.deepEqual(renamed.metadata, { owner: "me" });
  assert.equal((await client.getOrCreateCollection({ name: `${name}-new`, embeddingFunction: null })).id, collection.id);
  await client.deleteCollection({ name: `${name}-new` });
  await assert.rejects(client.getCollection({ name: `${name}-new` }), ChromaNotFoundError);
  await assert.rejects(collection.count(), ChromaNotFoundError);
});

test("the configuration chooses the distance", async () => {
  const collection = await client.createCollection({
    name: fresh(),
    configuration: { hnsw: { space: "cosine" } },
    embeddingFunction: null,
  });
  await collection.add({ ids: ["near", "far"], embeddings: [[5, 0], [0, 0.1]] });
  const found = await collection.query({ queryEmbeddings: [[1, 0]] });
  assert.deepEqual(found.ids, [["near", "far"]]);
  assert.ok(Math.abs(found.distances[0][1] - 1) < 1e-6);
});

test("errors are the client's own classes", async () => {
  const name = fresh();
  const collection = await filled(name);
  await assert.rejects(client.createCollection({ name, embeddingFunction: null }), ChromaUniqueError);
  await assert.rejects(collection.add({ ids: ["z"], embeddings: [[1, 2]] }), /dimension of 3, got 2/);
  await assert.rejects(collection.get({ where: { $nope: 1 } }));
  assert.equal(await collection.count(), 4);
});

test("tenants and databases keep their collections apart", async () => {
  const admin = new AdminClient(where);
  const tenant = fresh();
  await admin.createTenant({ name: tenant });
  await admin.createDatabase({ name: "first", tenant });
  await admin.createDatabase({ name: "second", tenant });
  assert.equal((await admin.listDatabases({ tenant })).length, 2);
  const first = new ChromaClient({ ...where, tenant, database: "first" });
  await first.createCollection({ name: "only-here", embeddingFunction: null });
  const second = new ChromaClient({ ...where, tenant, database: "second" });
  assert.equal((await second.listCollections()).length, 0);
  await admin.deleteDatabase({ name: "first", tenant });
  await assert.rejects(admin.getDatabase({ name: "first", tenant }), ChromaNotFoundError);
});

test("dense and sparse neighbours, and both fused", async () => {
  const schema = new Schema().createIndex(new SparseVectorIndexConfig(), "words");
  const collection = await client.createCollection({ name: fresh(), schema, embeddingFunction: null });
  const words = [
    { indices: [7], values: [1] },
    { indices: [7, 9], values: [0.5, 2] },
    { indices: [9], values: [0.25] },
  ];
  const metadatas = [...words.map((vector, i) => ({ n: i, words: vector })), { n: 3 }];
  await collection.add({ ids: IDS, embeddings: EMBEDDINGS, documents: DOCUMENTS, metadatas });

  const query = { indices: [9], values: [1] };
  const dense = Knn({ query: [0, 0, 1], returnRank: true, default: 100 });
  const sparse = Knn({ query, key: "words", returnRank: true, default: 100 });
  const found = await collection.search([
    new Search().rank(Knn({ query, key: "words" })).select(K.SCORE, "n"),
    new Search().rank(Rrf({ ranks: [dense, sparse] })).limit(1).select(K.DOCUMENT),
  ]);
  assert.deepEqual(found.ids, [["b", "c"], ["c"]]);
  assert.deepEqual(found.scores[0], [-1, 0.75]);
  assert.deepEqual(found.metadatas[0], [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(found.documents[1], ["a cherry"]);
});

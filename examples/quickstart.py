"""Quick start: colours as vectors, through the official Chroma client.

pip install chromadb && python examples/quickstart.py [host] [port]
"""

import sys

import chromadb

host, port = (sys.argv[1:] + ["127.0.0.1", "8000"][len(sys.argv) - 1 :])[:2]
client = chromadb.HttpClient(host=host, port=int(port))

# A colour is a vector of red, green and blue. Documents and metadata are free; vectors may come from any model.
colours = client.get_or_create_collection("colours", configuration={"hnsw": {"space": "l2"}}, embedding_function=None)
colours.upsert(
    ids=["tomato", "salmon", "gold", "olive", "teal", "navy", "plum"],
    embeddings=[[255, 99, 71], [250, 128, 114], [255, 215, 0], [128, 128, 0], [0, 128, 128], [0, 0, 128], [221, 160, 221]],
    documents=["a red fruit", "a pink fish", "a metal", "a green fruit", "a small duck", "a fleet", "a purple fruit"],
    metadatas=[{"warm": True}, {"warm": True}, {"warm": True}, {"warm": True}, {"warm": False}, {"warm": False}, {"warm": False}],
)
print("stored:", colours.count())

answer = colours.query(query_embeddings=[[255, 120, 100]], n_results=3)
print("nearest to coral:", answer["ids"][0])

answer = colours.query(query_embeddings=[[255, 120, 100]], n_results=3, where={"warm": False})
print("nearest that is cool:", answer["ids"][0][0], answer["distances"][0][0])

answer = colours.get(where_document={"$contains": "fruit"}, include=["documents"])
print("fruits:", dict(zip(answer["ids"], answer["documents"], strict=True)))

colours.update(ids=["olive"], metadatas=[{"ripe": True}])
colours.delete(ids=["plum"])
print("olive now:", colours.get(ids=["olive"])["metadatas"][0], "- left:", colours.count())

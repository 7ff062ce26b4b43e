"""Quick start: colours as vectors, through the official Chroma client.

pip install chromadb && python examples/quickstart.py [host] [port]
"""

import sys

import chromadb

# A colour is a vector of red, green and blue; vectors may come from any model.
COLOURS = [
    ("tomato", [255, 99, 71], "a red fruit", {"warm": True}),
    ("salmon", [250, 128, 114], "a pink fish", {"warm": True}),
    ("gold", [255, 215, 0], "a metal", {"warm": True}),
    ("olive", [128, 128, 0], "a green fruit", {"warm": True}),
    ("teal", [0, 128, 128], "a small duck", {"warm": False}),
    ("plum", [221, 160, 221], "a purple fruit", {"warm": False}),
]
CORAL = [255, 127, 80]

client = chromadb.HttpClient(*sys.argv[1:])  # localhost and 8000 when not given
colours = client.get_or_create_collection("colours", embedding_function=None)
ids, embeddings, documents, metadatas = map(list, zip(*COLOURS, strict=True))
colours.upsert(ids, embeddings, metadatas, documents)
print("stored:", colours.count())

answer = colours.query(query_embeddings=[CORAL], n_results=3)
print("nearest to coral:", answer["ids"][0])

answer = colours.query(query_embeddings=[CORAL], n_results=3, where={"warm": False})
print("nearest that are cool:", list(zip(answer["ids"][0], answer["distances"][0], strict=True)))

answer = colours.get(where_document={"$contains": "fruit"}, include=["documents"])
print("fruits:", answer["documents"])

colours.update(ids=["olive"], metadatas=[{"ripe": True}])
colours.delete(ids=["plum"])
print("olive now:", colours.get(ids=["olive"])["metadatas"][0], "- left:", colours.count())

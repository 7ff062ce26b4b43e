"""Quick start with texts: the server turns them into vectors. Nothing to install but Python.

python examples/texts.py [url]
"""

import json
import sys
import urllib.error
import urllib.request

NOTES = {
    "tides": "The moon's gravity pulls the oceans towards it, twice a day.",
    "bread": "Knead the dough, let it rise for an hour and bake it until it is golden.",
    "locks": "A mutex keeps two threads from changing the same memory at once.",
    "sails": "In a strong wind reef the mainsail early and keep the boat flat.",
}
SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


def post(path="", **body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(SERVER + COLLECTIONS + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{SERVER}: {error.code} {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"{SERVER}: {error.reason}")


notes = "/" + post(name="notes", get_or_create=True)["id"]
post(notes + "/upsert", ids=list(NOTES), documents=list(NOTES.values()))  # documents, no embeddings

for question in ("how do I make a loaf?", "race conditions", "why does the sea rise and fall?"):
    answer = post(notes + "/query", query_texts=[question], n_results=1)
    print(question, "->", answer["ids"][0][0])

"""The peer of the reads: the same framework answering a constant of a user's size, with no work at all.

uvicorn bench.peer_constant:app --port 8903 --log-level warning
"""

from fastapi import FastAPI, Response

ANSWER = b'{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"note":"' + b"x" * 500 + b'"}'
app = FastAPI()


@app.get("/constant/{name}")
async def constant(name: str) -> Response:
    return Response(ANSWER, media_type="application/scim+json")

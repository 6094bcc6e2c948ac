"""The floor: the least a durable SCIM create can cost on this stack.

HTTP in, JSON parsed, a leaf built and hashed, the body sealed, group commit through one writer into the tables of the
design, JSON out. No authentication, no SCIM rules, no validation, no ETag. A benchmark peer, not code to build on.

    FLOOR_DSN=postgresql://... uvicorn bench.floor:app --port 8901 --log-level warning
"""

import asyncio
import contextlib
import hashlib
import os
import uuid
from datetime import UTC, datetime

import orjson
import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

TABLES = """
create schema if not exists floor;
drop table if exists floor.events, floor.bodies, floor.users, floor.head;
create table floor.head (directory int primary key, next_seq bigint, position bigint);
insert into floor.head values (1, 1, 1);
create table floor.events (position bigint primary key, directory int not null, seq bigint not null, resource uuid not null,
    version int not null, type text not null, leaf bytea not null, leaf_hash bytea not null, at timestamptz not null,
    unique (directory, seq), unique (resource, version));
create table floor.bodies (position bigint primary key, resource uuid not null, sealed bytea not null);
create table floor.users (directory int, id uuid, user_name text not null, external_id text, active bool, doc jsonb, seq bigint,
    primary key (directory, id));
create unique index on floor.users (directory, lower(user_name));
create index on floor.users (directory, external_id);
"""
NUMBER = (
    "update floor.head set next_seq = next_seq + %s, position = position + %s where directory = 1 returning next_seq, position"
)
TAKEN = "select lower(user_name) from floor.users where directory = 1 and lower(user_name) = any(%s)"
EVENTS = "insert into floor.events select * from unnest(%b::int8[],%b::int4[],%b::int8[],%b::uuid[],%b::int4[],%b::text[],%b::bytea[],%b::bytea[],%b::timestamptz[])"
BODIES = "insert into floor.bodies select * from unnest(%b::int8[],%b::uuid[],%b::bytea[])"
USERS = (
    "insert into floor.users select * from unnest(%b::int4[],%b::uuid[],%b::text[],%b::text[],%b::bool[],%b::jsonb[],%b::int8[])"
)

BATCH_MAX = 256
queue: list[tuple[dict, asyncio.Future]] = []
wake = asyncio.Event()


async def write_batch(conn: psycopg.AsyncConnection, batch: list) -> list[str]:
    count = len(batch)
    async with conn.pipeline(), conn.transaction():
        head = await conn.cursor(binary=True).execute(NUMBER, (count, count))
        taken = await conn.cursor(binary=True).execute(TAKEN, ([doc["userName"].lower() for doc, _ in batch],))
        next_seq, next_position = await head.fetchone()
        await taken.fetchall()
        seq, position = next_seq - count, next_position - count
        now = datetime.now(UTC)
        ids, leaves, hashes, sealed, docs = [], [], [], [], []
        for offset, (doc, _) in enumerate(batch):
            identity = uuid.uuid4()
            doc["id"] = str(identity)
            body = orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)
            salt = os.urandom(32)
            ciphertext = AESGCM(os.urandom(32)).encrypt(os.urandom(12), salt + body, None)
            leaf = orjson.dumps(
                {"v": 1, "dir": "1", "seq": seq + offset, "type": "user.created", "obj": str(identity), "at": int(now.timestamp() * 1e6),
                 "cmt": hashlib.sha256(salt + body).hexdigest(), "ct": hashlib.sha256(ciphertext).hexdigest(), "actor": "tok"},
                option=orjson.OPT_SORT_KEYS)  # fmt: skip
            ids.append(identity)
            leaves.append(leaf)
            hashes.append(hashlib.sha256(b"\0" + leaf).digest())
            sealed.append(ciphertext)
            docs.append(body.decode())
        positions = list(range(position, position + count))
        seqs = list(range(seq, seq + count))
        await conn.cursor(binary=True).execute(
            EVENTS, (positions, [1] * count, seqs, ids, [1] * count, ["user.created"] * count, leaves, hashes, [now] * count)
        )
        await conn.cursor(binary=True).execute(BODIES, (positions, ids, sealed))
        await conn.cursor(binary=True).execute(
            USERS,
            (
                [1] * count,
                ids,
                [d["userName"] for d, _ in batch],
                [d.get("externalId") for d, _ in batch],
                [True] * count,
                docs,
                seqs,
            ),
        )
    return docs


async def write_forever() -> None:
    conn = await psycopg.AsyncConnection.connect(os.environ["FLOOR_DSN"], prepare_threshold=0)
    while True:
        await wake.wait()
        wake.clear()
        while queue:
            batch = queue[:BATCH_MAX]
            del queue[:BATCH_MAX]
            for (_, waiter), doc in zip(batch, await write_batch(conn, batch), strict=True):
                waiter.set_result(doc)


async def create_user(request) -> Response:
    doc = orjson.loads(await request.body())
    waiter = asyncio.get_running_loop().create_future()
    queue.append((doc, waiter))
    wake.set()
    return Response(
        await waiter,
        status_code=201,
        media_type="application/scim+json",
        headers={"Location": "/Users/" + doc["id"], "ETag": 'W/"1"'},
    )


@contextlib.asynccontextmanager
async def lifespan(app):
    async with await psycopg.AsyncConnection.connect(os.environ["FLOOR_DSN"], autocommit=True) as conn:
        await conn.execute(TABLES)
    task = asyncio.create_task(write_forever())
    yield
    task.cancel()


app = Starlette(routes=[Route("/scim/{directory}/v2/Users", create_user, methods=["POST"])], lifespan=lifespan)

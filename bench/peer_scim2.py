"""The peer in memory: scim2-server's ASGI application as its authors ship it, no storage behind it.

uvicorn bench.peer_scim2:app --port 8902 --log-level warning
"""

from scim2_server.applications.asgi import ASGIApplication
from scim2_server.memory import AsyncInMemoryStorage
from scim2_server.utils import load_default_provider

app = ASGIApplication(AsyncInMemoryStorage(), load_default_provider())

"""The HTTP edge: SCIM as a plain ASGI application, /v1 as FastAPI. Request and response objects never leave this package."""

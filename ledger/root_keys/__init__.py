"""Root keys: what wraps the key-encryption key (KEK) of each epoch, and stands outside the database (docs/concepts.md, "Personal data").

A provider holds one root key for each epoch, under a name of its own, and wraps and unwraps 32 bytes with it: at the start of the
service and at a rotation, never for a request. To destroy a root key makes its epoch unreadable for ever, in every backup.
"""

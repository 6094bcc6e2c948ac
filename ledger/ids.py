"""Types for the identifiers of directories and for places in the log, so that the type checker tells one from another. Pure."""

from typing import Final, NewType
from uuid import UUID

DirectoryNumber = NewType("DirectoryNumber", int)  # directories.id: the key of the tables; in no answer but inside a cursor
DirectoryUuid = NewType("DirectoryUuid", UUID)  # directories.uuid: in leaves and seals
NO_DIRECTORY: Final = DirectoryNumber(0)  # in the place of a number: the whole ledger, or a request that belongs to no directory
Slug = NewType("Slug", str)  # directories.slug: the public name
Position = NewType("Position", int)  # of an event in the whole ledger, from 1
Seq = NewType("Seq", int)  # of an event in its directory, from 1
# In code that reads either the whole ledger or one directory: a position there, a seq here. 0 is the place before the first event.
Number = NewType("Number", int)

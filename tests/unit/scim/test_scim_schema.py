"""The schema documents of scim/schemas."""

import json

import pytest
from scim2_models import EnterpriseUser, Group, User

from scim.schema import SCHEMA_FOLDER


@pytest.mark.parametrize("model", [User, Group, EnterpriseUser], ids=lambda model: model.__name__)
def test_a_schema_document_equals_that_of_the_library(model):
    """They are files so that a process starts fast; whoever raises the library's version sees here what changed."""
    expected = model.to_schema().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert json.loads((SCHEMA_FOLDER / f"{expected['name']}.json").read_bytes()) == expected


def test_there_is_no_other_document():
    assert sorted(path.name for path in SCHEMA_FOLDER.iterdir()) == ["EnterpriseUser.json", "Group.json", "User.json"]

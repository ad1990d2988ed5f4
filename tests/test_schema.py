"""The JSON schema of the recipe that comes with the package, for editors."""

import json

import jsonschema
import pytest
from typer.testing import CliRunner

from skillfactory.cli import app
from skillfactory.recipe import SCHEMA, schema_text
from skillfactory.recipes import read_yaml, shipped


def test_the_shipped_schema_is_what_the_recipe_says() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "recipe.schema.json is stale: skillfactory recipes --schema > skillfactory/recipe.schema.json"
    )
    assert CliRunner().invoke(app, ["recipes", "--schema"]).stdout == schema_text()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_schema_takes_shipped_recipes_and_no_others(name: str) -> None:
    check = jsonschema.Draft202012Validator(json.loads(schema_text()))
    data = read_yaml(shipped()[name])[0]
    check.validate(data)
    for wrong in ({"rl": {"stepz": 1}}, {"seed": -1}, {"name": "a b"}, {"training": {"shard": "all"}}):
        assert list(check.iter_errors({**data, **wrong}))

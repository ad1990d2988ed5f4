"""Typed parameters of tasks, with errors that name the key and the nearest match."""

from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from skillfactory.errors import QuestionError


class Params(BaseModel):
    """Base of a task's settings: nothing beyond its fields is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=Params)


def params_of(task: str, kind: type[P], params: dict[str, Any]) -> P:
    """The checked parameters. Raises QuestionError naming the parameter, what is allowed and the nearest match."""
    try:
        return kind(**params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = get_close_matches(key, kind.model_fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes: {', '.join(kind.model_fields)}."
            raise QuestionError(f"Task `{task}` has no parameter `{key}`; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        end = "" if message.endswith(("?", ".")) else "."
        raise QuestionError(f"Task `{task}`{f', parameter `{key}`' if key else ''}: {message}{end}") from error

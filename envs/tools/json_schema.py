"""Compare the arguments of a call with a JSON schema that somebody else wrote."""

import json
from functools import partial
from typing import Any

from ...errors import UserError
from . import BadArguments

try:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema import validators as dialects
    from jsonschema.exceptions import SchemaError, best_match  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable
except ImportError as error:
    raise UserError("JSON schemas need an extra: pip install 'palaestra[mcp]'") from error

_MOST_REFERENCES, _MOST_NESTED = 5_000, 32
"""Steps along `$ref` in one check, and levels that arguments may have."""
_PATTERNS = ("pattern", "patternProperties", "unevaluatedProperties")


class Fits:
    """Tell in bounded time whether arguments fit a schema, whatever either holds.

    The schema comes from a server and the arguments from an agent. Regular expressions can run
    for hours, so they are left to the server; references can multiply without end, so they are
    counted; and none is looked up outside the schema.

    Args:
        schema: A JSON schema, of draft 2020-12 where it does not say.

    Raises:
        ValueError: it is not a valid schema.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        dialect = dialects.validator_for(schema, default=Draft202012Validator)
        try:
            dialect.check_schema(schema)
        except SchemaError as error:
            raise ValueError(error.message[:200]) from None
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        known = dialect.VALIDATORS
        references = ("$ref", "$dynamicRef", "$recursiveRef")
        changed = {name: self._counted(known[name]) for name in references if name in known}
        changed |= dict.fromkeys(_PATTERNS, _pass)
        if others := known.get("additionalProperties"):
            changed["additionalProperties"] = partial(_unless_by_pattern, others)
        self._validator = dialects.extend(dialect, changed)(schema, registry=Registry())
        self._left = _MOST_REFERENCES

    def check(self, arguments: dict[str, Any]) -> None:
        """Compare arguments with the schema.

        Raises:
            BadArguments: they do not fit, or could not even be sent as JSON.
        """
        if _is_deeper(arguments, _MOST_NESTED):
            raise BadArguments("the arguments are nested too deep")
        try:
            json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError):
            raise BadArguments("the arguments are not valid JSON") from None
        self._left = _MOST_REFERENCES
        try:
            found = best_match(self._validator.iter_errors(arguments))
        except Unresolvable:
            return  # the server knows what its schema refers to
        except Exception:
            # Numbers and depths that jsonschema trips over are not meant well.
            raise BadArguments("the arguments are too large or nested too deep") from None
        if found is not None:
            raise BadArguments(f"{found.json_path}: {found.message}"[:200])

    def _counted(self, follow: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise RecursionError("too many references")
            return follow(*arguments)

        return counted


def _pass(*_: object) -> None:
    """Check nothing."""


def _unless_by_pattern(check: Any, validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    return None if "patternProperties" in schema else check(validator, value, instance, schema)


def _is_deeper(value: object, most: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_is_deeper(one, most - 1) for one in inner)

"""Tools: the schema and the checks that come from a signature."""

import math
from typing import Any

import pytest
from palaestra.envs.calculator import calculator
from palaestra.envs.tools import BadArguments, Tool, ToolError, ToolTimeout


def weather(city: str, days: int, metric: bool = True, threshold: float = 0.5) -> str:
    """Forecast the weather.

    Args:
        city: Name of a city.
        days: How many days ahead, from 1.
        metric: Whether to use degrees Celsius.
        threshold: Least probability of rain that is mentioned.
    """
    return f"{city} {days} {metric} {threshold}"


class Station:
    def report(self, hour: int) -> str:
        """Report what was measured.

        Args:
            hour: Hour of the day.
        """
        return f"{hour}"


WEATHER = Tool(weather)
FITTING: dict[str, Any] = {"city": "Oslo", "days": 2}


def test_the_schema_comes_from_signature_and_docstring() -> None:
    assert WEATHER.schema == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Forecast the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of a city."},
                    "days": {"type": "integer", "description": "How many days ahead, from 1."},
                    "metric": {
                        "type": "boolean",
                        "description": "Whether to use degrees Celsius.",
                    },
                    "threshold": {
                        "type": "number",
                        "description": "Least probability of rain that is mentioned.",
                    },
                },
                "required": ["city", "days"],
            },
        },
    }


@pytest.mark.parametrize("function", [weather, Station().report, calculator])
def test_the_schema_is_the_one_that_transformers_reads(function: Any) -> None:
    utils = pytest.importorskip("transformers.utils")
    expected = utils.get_json_schema(function)
    expected["function"].pop("return", None)
    assert Tool(function).schema == expected


@pytest.mark.parametrize(
    "more", [{}, {"metric": False}, {"threshold": 0.25}, {"threshold": 1}, {"threshold": -0.0}]
)
def test_arguments_that_fit(more: dict[str, Any]) -> None:
    WEATHER.check(FITTING | more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "weather takes city, days, metric, threshold"),
        ({"city": "Oslo"}, "weather takes city, days"),
        (FITTING | {"town": "Oslo"}, "weather takes city, days"),
        (FITTING | {"city": 3}, "city must be of type string"),
        (FITTING | {"city": None}, "city must be of type string"),
        (FITTING | {"city": ["Oslo"]}, "city must be of type string"),
        (FITTING | {"days": 2.0}, "days must be of type integer"),
        (FITTING | {"days": "2"}, "days must be of type integer"),
        (FITTING | {"days": True}, "days must be of type integer"),
        (FITTING | {"metric": 1}, "metric must be of type boolean"),
        (FITTING | {"threshold": "0.5"}, "threshold must be of type number"),
        (FITTING | {"threshold": True}, "threshold must be of type number"),
        (FITTING | {"threshold": math.nan}, "threshold must be finite"),
        (FITTING | {"threshold": math.inf}, "threshold must be finite"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArguments, match=message):
        WEATHER.check(arguments)


def test_a_method_is_a_tool_without_its_self() -> None:
    tool = Tool(Station().report)
    assert tool.name == "report"
    assert tool.parameters == {"hour": int}
    tool.check({"hour": 3})


def test_errors_name_the_failure() -> None:
    assert ToolError("refused").failure == "tool"
    assert ToolTimeout("too slow").failure == "timeout"

from dataclasses import dataclass

import pytest
from docstring_parser import parse_from_object, parser
from jsonargparse._optionals import get_docstring_parse_options

from lit_llm.commands.docstrings import read_docstrings


@dataclass
class Sizes:
    width: int = 1
    """channels"""


class Plain:
    width: int = 1
    """channels"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(parser, "add_attribute_docstrings", parser.add_attribute_docstrings)
    options = get_docstring_parse_options()
    before = options["attribute_docstrings"]
    yield
    options["attribute_docstrings"] = before


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ([], False),
        (["-c", "recipe.yaml", "--model.seed", "1"], False),
        (["--help"], True),
        (["-c", "recipe.yaml", "-h"], True),
        (["--model.objective.help", "CausalLM"], True),
        (["--model.objective.help=CausalLM"], True),
        (["--print_config=comments"], True),
    ],
)
def test_the_docstrings_of_fields_are_read_for_a_help_alone(arguments, read):
    read_docstrings(arguments)
    assert get_docstring_parse_options()["attribute_docstrings"] is read


def test_only_dataclasses_have_their_source_read():
    read_docstrings(["--help"])
    read_docstrings(["--help"])
    assert [p.description for p in parse_from_object(Sizes).params] == ["channels"]
    assert parse_from_object(Plain).params == []


def test_the_help_of_fit_shows_what_the_docstring_of_a_field_says(cli):
    shown = " ".join(cli("fit", "--help").out.split())
    assert "Width of the residual stream" in shown

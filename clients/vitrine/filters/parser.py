"""The filter language for people, turned into the typed tree."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple, NoReturn, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from vitrine import attributes
from vitrine.errors import InvalidArgumentError
from vitrine.filters.grammar import GRAMMAR
from vitrine.filters.limits import MAX_LEVELS, MAX_TEXT_BYTES, validate
from vitrine.v1 import common_pb2, filter_pb2

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

_EXPECTED = {
    "NAME": "an attribute name",
    "QUOTED_NAME": "an attribute name",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "BOOLEAN": "true or false",
    "OPERATOR": "an operator (= != < <= > >=)",
    "_AND": "and",
    "_OR": "or",
    "_NOT": "not",
    "_IN": "in",
    "_EXISTS": "exists(...)",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}


class _SemanticError(Exception):
    """Fits the grammar, but cannot be; `position` is a character offset."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


class _Node(NamedTuple):
    """A subtree with its depth, so that text nested too deep fails before copying it gets expensive."""

    filter: filter_pb2.Filter
    levels: int


class _Operand(NamedTuple):
    """A literal and where it stands."""

    token: Token
    value: common_pb2.AttributeValue


@v_args(inline=True)
class _TreeBuilder(Transformer[Token, filter_pb2.Filter]):
    """Builds the tree while the text is parsed, bottom up and so without recursion."""

    def start(self, root: _Node) -> filter_pb2.Filter:
        return root.filter

    def disjunction(self, *children: _Node) -> _Node:
        return _grown(filter_pb2.Filter(any=_group(children)), children, 2)

    def conjunction(self, *children: _Node) -> _Node:
        return _grown(filter_pb2.Filter(all=_group(children)), children, 2)

    def negate(self, child: _Node) -> _Node:
        return _grown(filter_pb2.Filter(negate=child.filter), (child,), 1)

    def compare(self, name: str, operator: Token, operand: _Operand) -> _Node:
        if operator == "=":
            return self.any_of(name, operand)
        if operator == "!=":
            return self.none_of(name, operand)
        if operand.value.WhichOneof("kind") == "bool_value":
            raise _SemanticError(_offset(operand.token), f"{operator} needs a number or a string, not {operand.token}")
        bounds = filter_pb2.Range(attribute=name)
        getattr(bounds, {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[operator]).CopyFrom(operand.value)
        return _Node(filter_pb2.Filter(range=bounds), 1)

    def any_of(self, name: str, *operands: _Operand) -> _Node:
        any_of = filter_pb2.AnyOf(attribute=name, values=[operand.value for operand in operands])
        return _Node(filter_pb2.Filter(any_of=any_of), 1)

    def none_of(self, name: str, *operands: _Operand) -> _Node:
        return self.negate(self.any_of(name, *operands))

    def exists(self, name: str) -> _Node:
        return _Node(filter_pb2.Filter(exists=filter_pb2.Exists(attribute=name)), 1)

    def name(self, token: Token) -> str:
        name = token[1:-1] if token.type == "QUOTED_NAME" else str(token)
        if (size := len(name.encode())) > attributes.MAX_NAME_BYTES:
            raise _SemanticError(
                _offset(token), f"the attribute name has {size} bytes, at most {attributes.MAX_NAME_BYTES}"
            )
        return name

    def value(self, token: Token) -> _Operand:
        try:
            return _Operand(token, attributes.to_proto(_literal(token), "the value"))
        except InvalidArgumentError as error:
            raise _SemanticError(_offset(token), error.message) from None


def parse(text: str, field: str = "filter_text") -> filter_pb2.Filter:
    r"""Parses a filter written by a person.

    `category = "Kitchen" and (price < 50 or sale = true) and not brand in ("A", "B") and exists(stock)`

    Operators: = != < <= > >=, `in (...)`, `not in (...)`, `exists(...)`, `and`, `or`, `not`, parentheses. Strings
    stand in single or double quotes, with the escapes \n \r \t \\ \" \'. A number without point and exponent is an
    int64, any other a double. An attribute whose name is no plain word stands in backticks.

    Raises:
        InvalidArgumentError: Not this language, with the position, or over a limit.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        _fail(field, error.start, "not valid Unicode text")
    if size > MAX_TEXT_BYTES:
        raise InvalidArgumentError(f"{field} has {size} bytes, at most {MAX_TEXT_BYTES}", field=field)
    if not text.strip():
        raise InvalidArgumentError(f"{field} is empty", field=field)
    try:
        parsed: Any = _parser().parse(text)
    except _SemanticError as error:
        _fail(field, error.position, error.reason)
    except UnexpectedInput as unexpected:
        _fail(field, *_explain(unexpected, text))
    condition: filter_pb2.Filter = parsed
    validate(condition, field)
    return condition


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", transformer=_TreeBuilder())


def _group(children: tuple[_Node, ...]) -> filter_pb2.FilterGroup:
    return filter_pb2.FilterGroup(filters=[child.filter for child in children])


def _grown(node: filter_pb2.Filter, children: tuple[_Node, ...], by: int) -> _Node:
    levels = by + max(child.levels for child in children)
    if levels > MAX_LEVELS:
        raise _SemanticError(0, f"nested deeper than {MAX_LEVELS} levels")
    return _Node(node, levels)


def _literal(token: Token) -> str | int | float | bool:
    if token.type == "STRING":
        return _ESCAPE.sub(lambda match: _unescape(token, match), token[1:-1])
    if token.type == "BOOLEAN":
        return token.lower() == "true"
    return float(token) if re.search("[.eE]", token) else int(token)


def _unescape(token: Token, match: re.Match[str]) -> str:
    if match[1] not in _ESCAPES:
        raise _SemanticError(
            _offset(token) + 1 + match.start(), rf"unknown escape \{match[1]}; known: \n \r \t \\ \" \'"
        )
    return _ESCAPES[match[1]]


def _offset(token: Token) -> int:
    return token.start_pos or 0


def _explain(error: UnexpectedInput, text: str) -> tuple[int, str]:
    if isinstance(error, UnexpectedToken):
        at_end = error.token.type == "$END"
        position = len(text.rstrip()) if at_end else _offset(error.token)
        found = "the end" if at_end else repr(str(error.token)[:40])
        return position, f"expected {_readable(error.accepts or error.expected)}, found {found}"
    assert isinstance(error, UnexpectedCharacters)
    start = cast(int, error.pos_in_stream)  # declared as None in lark
    if text[start] in "\"'`":
        return start, "the quote is not closed"
    return start, f"expected {_readable(error.allowed)}, found {text[start : start + 10]!r}"


def _readable(terminals: set[str]) -> str:
    names = sorted({_EXPECTED.get(name, name) for name in terminals})
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _fail(field: str, position: int, reason: str) -> NoReturn:
    raise InvalidArgumentError(f"{field}, character {position + 1}: {reason}", field=field)

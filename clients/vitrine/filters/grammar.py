"""The grammar of the filter language, for lark's LALR parser."""

GRAMMAR = r"""
// The filter language for people. `not` binds tighter than `and`, `and` tighter than `or`.

start: disjunction

?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation  -> negate
         | "(" disjunction ")"
         | comparison

?comparison: name OPERATOR value                              -> compare
           | name _IN "(" value ("," value)* [","] ")"        -> any_of
           | name _NOT _IN "(" value ("," value)* [","] ")"   -> none_of
           | _EXISTS "(" name ")"                             -> exists

name: NAME | QUOTED_NAME
value: STRING | NUMBER | BOOLEAN

OPERATOR: "<=" | ">=" | "!=" | "<" | ">" | "="

_AND.2: /and(?![\w.-])/i
_OR.2: /or(?![\w.-])/i
_NOT.2: /not(?![\w.-])/i
_IN.2: /in(?![\w.-])/i
// Only before a parenthesis, so that an attribute may be called "exists".
_EXISTS.2: /exists(?=\s*\()/i
BOOLEAN.2: /(true|false)(?![\w.-])/i

NAME: /[^\W\d][\w.-]*/
// For names that are no plain word: `list price`.
QUOTED_NAME: /`[^`]+`/
NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?(?![\w.])/i
STRING: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/s

%ignore /\s+/
"""

"""What people see: consoles, error lines, tables of products."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vitrine.attributes import TAGS, Value
from vitrine.catalogue import CatalogueError
from vitrine.collections.progress import ProgressFileError
from vitrine.errors import VitrineError
from vitrine.evaluation import LeftBehindError
from vitrine.ingest import FailedRowsError
from vitrine.results import FacetCount, RankedProduct, Recognition, SearchAnswer

_NOT_A_TERMINAL_WIDTH = 120
_FIRST_ATTRIBUTES = ("title", "category", "brand", "price", "in_stock")
_LAST_ATTRIBUTES = (TAGS,)
_MAX_ATTRIBUTES = 5

console = Console(width=None if sys.stdout.isatty() else _NOT_A_TERMINAL_WIDTH)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else _NOT_A_TERMINAL_WIDTH)

# The stages that follow one another, before those of the ranking; the others are inside `embed`, or beside all that.
_STAGES = ("embed", "lookup", "index", "merge")
_BESIDE = ("decode", "queue", "model", "text", "encode_text")

_REASONS = {
    "shard_failed": "a shard failed or could not be reached",
    "shard_timed_out": "a shard did not answer in time",
    "shard_skipped": "a shard was not asked, because it failed again and again",
    "text_incomplete": "the text counts in part only",
    "stage_skipped": "a ranking stage failed or took too long",
}


def explain(error: BaseException) -> str | None:
    """Returns one line for an error people can act on; None: it is a defect, and deserves its traceback."""
    match error:
        case VitrineError():
            return escape(error.message)
        case CatalogueError() | FailedRowsError() | LeftBehindError() | ProgressFileError():
            return escape(str(error))
        case OSError():
            return escape(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        case _:
            return None


def plain_table() -> Table:
    """Returns an empty table in the style of this command."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def product_table(products: Sequence[RankedProduct], right: str | None = None) -> Table:
    """Returns ranked products as a table, with the attributes that say most; the product `right` is marked."""
    shown = _shown_attributes(products)
    table = plain_table()
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("product", no_wrap=True)
    for name in shown:
        values = [product.attributes.get(name) for product in products]
        numeric = all(isinstance(value, int | float) for value in values if value is not None)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="ellipsis")
    for product in products:
        table.add_row(
            str(product.rank),
            f"{product.score:.3f}",
            escape(product.product_id) + (" ✓" if product.product_id == right else ""),
            *(escape(show(product.attributes.get(name))) for name in shown),
            style="bold green" if product.product_id == right else None,
        )
    return table


def explanation_table(products: Sequence[RankedProduct]) -> Table:
    """Returns what each stage made of the products' scores, as a table."""
    table = plain_table()
    table.add_column("#", justify="right")
    table.add_column("product", no_wrap=True)
    table.add_column("stage")
    table.add_column("score after", justify="right")
    table.add_column("why")
    for product in products:
        for index, step in enumerate(product.explanation):
            rank, product_id = (str(product.rank), escape(product.product_id)) if index == 0 else ("", "")
            table.add_row(rank, product_id, step.stage, f"{step.score:.3f}", escape(step.note))
    return table


def facet_table(attribute: str, counts: Sequence[FacetCount]) -> Table:
    """Returns how often an attribute has which value, as a table."""
    table = plain_table()
    table.add_column(attribute.replace("_", " "))
    table.add_column("products", justify="right")
    for each in counts:
        table.add_row(escape(show(each.value)), str(each.count))
    return table


def show(value: Value | None) -> str:
    """Returns an attribute value for people."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.2f}"
        case list():
            return ", ".join(value)
        case _:
            return str(value)


def answer_line(answer: SearchAnswer | Recognition) -> str:
    """Returns how complete an answer is and where its time went."""
    coverage = answer.coverage
    text = ("text",) if "index" not in answer.timings else ()
    names = [*text, *_STAGES, *(name for name in answer.timings if name not in _STAGES + _BESIDE)]
    stages = " · ".join(f"{name} {1000 * answer.timings[name]:.1f} ms" for name in names if name in answer.timings)
    return f"{coverage.shards_answered} of {coverage.shards_total} shards · {coverage.points} images · {stages}"


def degraded_lines(answer: SearchAnswer | Recognition) -> list[str]:
    """Returns in plain words why an answer is incomplete; empty: it is complete."""
    return [f"incomplete: {_REASONS.get(reason, reason)}" for reason in answer.degraded]


def _shown_attributes(products: Sequence[RankedProduct]) -> list[str]:
    there = dict.fromkeys(name for product in products for name in sorted(product.attributes))
    first = [name for name in _FIRST_ATTRIBUTES if name in there]
    last = [name for name in _LAST_ATTRIBUTES if name in there]
    return [*first, *(name for name in there if name not in (*first, *last)), *last][:_MAX_ATTRIBUTES]

"""Catalogues and query sets as CSV files: strict about the file, forgiving about single rows.

A file that cannot be understood (no such column, not CSV, not UTF-8) raises `CatalogueError` before anything is
sent. A row that cannot be used becomes a `Problem` with its number and reason, and the rest goes on.
"""

from __future__ import annotations

from vitrine.catalogue.columns import Column, ColumnType
from vitrine.catalogue.products import Catalogue, ProductImage
from vitrine.catalogue.queries import QueryPhoto, read_queries
from vitrine.catalogue.table import CatalogueError, Problem
from vitrine.catalogue.updates import AttributeChange, AttributeFile

__all__ = [
    "AttributeChange",
    "AttributeFile",
    "Catalogue",
    "CatalogueError",
    "Column",
    "ColumnType",
    "Problem",
    "ProductImage",
    "QueryPhoto",
    "read_queries",
]

"""What shoppers did with results: records as the gateway keeps them, and what they say of the search."""

from __future__ import annotations

from vitrine.feedback.records import Action, FeedbackEvent, QueryRecord
from vitrine.feedback.report import KindReport, report

__all__ = ["Action", "FeedbackEvent", "KindReport", "QueryRecord", "report"]

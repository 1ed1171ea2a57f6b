"""The report: one offline HTML page with tables, plots, texts and records of suites."""

from bench.reporting.report.page import page

__all__ = ["page"]

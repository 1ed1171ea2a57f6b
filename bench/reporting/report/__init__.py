"""One page about suites: tables, pictures, texts byte by byte, and every record behind them; it needs no network."""

from bench.reporting.report.page import page

__all__ = ["page"]

"""Figures as Vega-Lite: drawn by Vega on the pages, and by one renderer for files."""

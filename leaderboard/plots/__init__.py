"""Publication figures: matplotlib, to SVG and PNG."""

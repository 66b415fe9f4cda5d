"""Synthetic songs with exact truth: plan, parts, stems, mix."""

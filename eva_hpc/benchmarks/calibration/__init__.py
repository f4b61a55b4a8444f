"""A substitute judge against published numbers: level, rank, and question by question."""

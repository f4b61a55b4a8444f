"""Asking a judge: what a judged benchmark is, the loop that asks, its cost, and files of answers judged outside a sweep."""

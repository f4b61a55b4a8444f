"""Artifacts: named by key, committed atomically, verified on read; and the records inside them.

The only room that knows the layout on disk. Any room but `config` may import it; it imports nothing of ours and nothing heavy.
"""

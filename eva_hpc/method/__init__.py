"""eva itself as pure functions over records: informativeness, sampling, evolving, admission, mixing, pairing.

The stages call it; anyone may, since nothing here reads a file, starts a process or draws from a global generator.
It may import `store.seeds` and the record types of `store.records`, and nothing heavy.
"""

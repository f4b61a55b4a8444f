"""Everything a user may write: sweep, recipe and site files, as pydantic models, and the YAML loader.

Any room may import it; it imports no other room and nothing heavy.
A mistake in a file becomes one :class:`~eva_hpc.config.errors.ConfigError` that names file, line, value and what is allowed.
"""

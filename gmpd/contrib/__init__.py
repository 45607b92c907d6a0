"""Plugs into other libraries: each module is for users of one, and no other module imports it."""

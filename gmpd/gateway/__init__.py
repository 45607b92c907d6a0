"""The gateway: the HTTP process of gmpd. ``/metrics``, the JSON API, health, an index.

It is a process of its own so that a scrape, a browser or a slow reader can never hold up a single
dispatch; when it dies, scheduling does not notice. It must never unpickle a value, never talk to a
worker, and never change anything: it asks the coordinator for its snapshot and shows it.
"""

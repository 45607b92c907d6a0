"""The JSON API ``/api/v1``: one table of routes, from which its checks and its OpenAPI follow.

``routes`` is the table; ``shapes`` has the types of parameters and answers, ``handlers`` a small
function for each route, ``rules`` the refusals, ``dispatch`` the way from a request to an answer,
``openapi`` the document, ``events`` the stream. Nothing here unpickles, and nothing waits for a
worker longer than a question may take.
"""

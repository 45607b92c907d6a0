"""The daemon: coordinator and workers. Each module here is the only door to its outside thing."""

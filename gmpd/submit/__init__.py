"""The submitting side of the wire, without IO: for clients, and workers whose children leave."""

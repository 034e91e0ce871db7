"""A simulator of federated learning in which every client has its own architecture. No code lives in this file."""

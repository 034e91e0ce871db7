"""Federated learning where every client has its own architecture."""

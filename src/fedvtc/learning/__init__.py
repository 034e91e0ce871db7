"""Computes a federation: data, models, messages, clients, methods, metrics. No Ray, no terminal, no run folder."""

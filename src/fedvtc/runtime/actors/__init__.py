"""Clients in Ray actors. The only folder of the runtime that imports Ray; no client logic."""

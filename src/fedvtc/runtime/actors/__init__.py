"""Clients in Ray actors. Only here does the runtime import Ray."""

"""The computation: data, models, exchanged values, clients, methods and metrics. No Ray, no terminal, no run folder."""

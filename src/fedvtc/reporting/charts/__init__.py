"""Figures as data and as Altair charts. Altair is imported by these modules only, and never by a run."""

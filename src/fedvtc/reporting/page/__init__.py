"""The page of a report: one HTML file that needs no network, and its figures as files."""

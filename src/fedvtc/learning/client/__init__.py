"""One client: its images, its modules, its steps. No method, no Ray."""

"""One client: its images, modules, memory and training steps. No method, no Ray."""

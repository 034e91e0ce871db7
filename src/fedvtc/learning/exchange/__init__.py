"""Values that clients and the server send each other. No training, no models."""

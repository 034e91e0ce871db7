"""Values that cross the wire between a client and the server. No training, no models."""

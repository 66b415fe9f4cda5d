"""Music Flamingo itself, shared by both back ends and by training."""

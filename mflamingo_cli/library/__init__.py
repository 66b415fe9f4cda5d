"""Many songs: what earlier runs did, songs heard ahead in processes of their own, and how far a run is."""

"""How the embedded model is made: its stages, its data, its front end."""

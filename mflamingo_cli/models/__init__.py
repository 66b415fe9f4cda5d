"""Models as files: published ones, downloads, agreement on songs."""

"""Models as files: the published ones, the local cache, downloads, agreement on songs."""

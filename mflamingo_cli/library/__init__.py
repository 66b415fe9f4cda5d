"""Many songs: the engines that analyse them, progress, tags in their files."""

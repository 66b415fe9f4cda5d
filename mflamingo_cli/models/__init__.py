"""Models as files: which are published, what lies in the Hugging Face cache, downloads, agreement of two back ends on songs."""

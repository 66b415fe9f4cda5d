"""The audio encoder on ggml: shared libraries (`binding`), the GGUF's tensors (`weights`), operations (`graph`)."""

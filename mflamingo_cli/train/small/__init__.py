"""How a model with pretrained parts is made: Whisper's encoder, a language model, and what joins them."""

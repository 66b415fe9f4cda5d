"""What the language model of mini learns to say: facts, questions, answers, captions, rationales."""

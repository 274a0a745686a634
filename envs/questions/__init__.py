"""What the environments ask about, and how: questions, their answers, their databases."""

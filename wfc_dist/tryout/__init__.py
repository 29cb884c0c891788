"""A local page to try models on: a clip goes in, the texts of several models come out side by side."""

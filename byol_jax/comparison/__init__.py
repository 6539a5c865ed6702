"""The paper's evaluations of one encoder, side by side with its numbers."""

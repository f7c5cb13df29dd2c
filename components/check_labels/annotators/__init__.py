"""Several people's answers: how far they agree, and what they amount to."""

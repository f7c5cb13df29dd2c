"""Evidence of drift: the watch of ``kfloop.core.drift`` on a champion's reference, and how large what it finds is."""

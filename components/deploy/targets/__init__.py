"""Where a champion is served: one module for each kind of target, and one protocol of a few methods (``protocol.Target``)."""

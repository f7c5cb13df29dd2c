"""What every layer shares: configuration, dataset versions, state, store, registry, statistics."""

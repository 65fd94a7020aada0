"""Every figure is a pure function of stored data, and can write itself for a slide."""

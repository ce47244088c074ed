"""A search for the settings that suit one task, within a budget of time, and what may be said of its result."""

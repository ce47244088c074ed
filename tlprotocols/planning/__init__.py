"""What a sweep comes to and what it costs."""

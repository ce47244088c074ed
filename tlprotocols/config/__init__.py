"""From the command line to a typed, checked configuration, and who a run is."""

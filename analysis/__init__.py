"""From the table of results to the paper's figures, tables and claims: one file per figure or table.

Nothing here trains, and nothing reads a path: every function takes the table of `tlprotocols.results.load`.
"""

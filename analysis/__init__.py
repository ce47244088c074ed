"""Figures, tables and claim verdicts from a table of results.

General modules are here; each study of a paper is a package that exports one `STUDY` (see `analysis.study`) and is
listed in `analysis.studies`. Nothing here trains: functions take the table of `tlprotocols.results.load`, or the rows
that `Study.rows` takes from it.
"""

"""The steps that bring older books up to date, run by alembic under a version table of their own.

`greensv.energy.books.schema` runs them when it opens books that are not of the newest revision; nobody needs alembic's
command line. Optuna's tables and its `alembic_version` are never looked at.

A change of `greensv.energy.books.tables` is a new file in `versions/`: `rNNNN_what_it_does.py` with the next
`revision`, `down_revision` the one before, and an `upgrade()` whose tables and columns are written out in full, since
`tables` will have moved on by the time it runs. Then set `schema.HEAD` to it. A test checks that an upgraded database
is like a new one. There is no way back: keep a copy of the database, or of the file.
"""

"""greensv: speaker-verification networks that are accurate and cheap to train and run.

The packages: `greensv.speaker` (networks, corpora, training, scoring), `greensv.energy` (meters, ledger, budget),
`greensv.search` (where trials, joules and speakers meet), `greensv.report`, `greensv.cli`. See docs/architecture.md.
"""

__version__ = "0.1.0"

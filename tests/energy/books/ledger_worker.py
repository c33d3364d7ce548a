"""A worker for test_budget: reserves, charges and settles until nothing fits.

Arguments: the database's URL, the study, a file for what was confirmed, the beats of the first lease, a cap or 0.
"""

import os
import random
import sys
import time

from sqlalchemy import create_engine

from greensv.energy.books.budget import Charge, this_process
from greensv.energy.books.ledger import Ledger

url, study, log, first_beats, cap = sys.argv[1:]
ledger = Ledger(create_engine(url))
if int(cap):
    ledger.open_account(study, "search", int(cap))
written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
holder = this_process()
generator = random.Random(os.getpid())
trial = 0
while lease := ledger.reserve(
    study, "search", 50_000, purpose="training", trial_number=trial, holder=holder, ttl_s=600.0
):
    for _ in range(generator.randint(2, 5) if trial else int(first_beats)):
        time.sleep(0.002)
        charge = Charge(
            purpose="training",
            trial_number=trial,
            started_at=time.time(),
            ended_at=time.time(),
            meter="scripted",
            domain="cpu",
            quality="measured",
            energy_uj=generator.randint(1, 15_000 if trial else 300),
            pue=1.0,
        )
        ledger.charge(lease, [charge], peak_power_w=0.001)
        os.write(written, f"{charge.id} {charge.energy_uj}\n".encode())
    ledger.settle(lease)
    trial += 1

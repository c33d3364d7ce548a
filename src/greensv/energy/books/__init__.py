"""The books: tables, accounts with a cap, leases, charges, and what turns the monitor's totals into them."""

"""Energy: meters and the monitor that accounts for them, carbon, ledger and budget. Knows neither torch nor Optuna."""

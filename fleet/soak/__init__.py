"""Nights of random runs: what is drawn, the corpus of failing plans, the harness watched for drift, the history."""

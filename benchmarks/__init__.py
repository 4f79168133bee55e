"""What Fleet costs: `python -m benchmarks` measures it on the machine at hand. Never imported by the product."""

"""What actorflow costs, as ratios to the raw limits measured in the same run: ``python -m benchmarks``."""

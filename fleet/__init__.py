"""The simulator and test harness: scenarios, a virtual world, faults, an independent oracle, runs."""

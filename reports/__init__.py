"""From a finished run's plain values to files and tables that people read. Never imports the simulator."""

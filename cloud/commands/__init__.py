"""The commands of `fleet-cloud`, one module for each group, imported when one of them runs."""

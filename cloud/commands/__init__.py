"""The commands of `fleet-cloud`, each imported when it runs, so that none waits for what another needs."""

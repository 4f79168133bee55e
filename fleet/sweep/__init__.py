"""Many runs: what one of them is, what came of it, on which processes they run, and what they say together."""

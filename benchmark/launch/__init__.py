"""Many runs: processes on this machine, and the interface through which other engines train them."""

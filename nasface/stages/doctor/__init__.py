"""What `nasface doctor` looks at: this machine and its installation, a folder of results, and a study."""

"""Where each flow runs: deployments, work pools, and a whole local set of services."""

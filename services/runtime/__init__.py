"""What every service process shares: settings, logs, metrics, errors, start and drain."""

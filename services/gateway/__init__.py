"""The gateway: `vitrine.engine` served as `vitrine.v1.VisualSearch`."""

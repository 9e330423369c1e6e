"""Vitrine: visual search for shops. The client library, the `vitrine` command, and the generated stubs."""

"""The version of Vitrine: of the client library and of the services, which are released together."""

VERSION = "0.1.0"

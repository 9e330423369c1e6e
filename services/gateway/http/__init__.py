"""The gateway over HTTP: a JSON API, product pictures, and a web page. No search logic lives here."""

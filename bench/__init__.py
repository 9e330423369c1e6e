"""Speed, measured on this machine; each benchmark prints one JSON object as its last line."""

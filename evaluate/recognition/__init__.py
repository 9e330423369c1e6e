"""Recognition, measured: half of a catalogue's products are withheld, and photos of both halves are shown."""

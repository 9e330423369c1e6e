"""Asking all shards at once: what is decided (`machine`, `breaker`, `budget`: no clock, no socket) and what is done.

A fan-out is a state machine that hears what happened and says what to do next; `driver` does it on asyncio.
"""

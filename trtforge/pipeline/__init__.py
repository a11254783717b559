"""Stages, plan, store and events: the only room that knows all the others."""

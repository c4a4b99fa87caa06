"""Deciding: sensitivity, search and explanation."""

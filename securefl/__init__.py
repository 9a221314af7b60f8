"""Cryptographic protection around federated learning: a server learns the sum of the updates and nothing of any one."""

__version__ = "0.1.0"

"""Carrying frames between roles.

``transcript``  what was sent, as JSON lines
``memory``      all parties in one process, in a fixed order, with scripted faults
"""

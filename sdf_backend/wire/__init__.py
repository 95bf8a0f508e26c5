"""The wire: what travels between clients and the backend (PROTOCOL.md), and the client.

Standard library, numpy and pyzmq only, and nothing else of the project: the Blender extension carries a copy.
"""

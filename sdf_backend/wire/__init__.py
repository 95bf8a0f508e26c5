"""The wire protocol between clients and the backend (PROTOCOL.md), and the client.

Needs the standard library, numpy and pyzmq only, and nothing else of the project: the Blender extension ships a copy.
"""

"""The backend: server, jobs, clients, authentication, workers."""

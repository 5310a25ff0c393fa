"""Bytes under keys: the object store's port, its S3 adapter, and the protocol of publishing."""

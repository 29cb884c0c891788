"""What a user may say: the schema of a configuration, and how a file becomes one."""

"""`fedvtc init`: writes a project with a method of the user's own. The folder `project` holds the files."""

"""One module for each command of ``p3d``; each is imported when it is called."""

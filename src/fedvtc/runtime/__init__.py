"""Where clients live: in this process or in Ray actors. Ray is imported only once it is needed."""

"""Methods that explain a response by maps, and what they are compared by: where the mass lies, insertion and deletion."""

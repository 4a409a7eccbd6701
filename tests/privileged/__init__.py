"""Generated privileged situations, and the guest that puts a processor into them."""

"""Several devices: a backbone that is spread over them, and what fits on one."""

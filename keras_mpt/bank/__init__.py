"""Many adapters on one frozen backbone, in one batch."""

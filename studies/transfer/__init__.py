"""What transfer brings on real tasks, from few rows and from all: `make transfer`."""

"""What a developer runs beside the tests and the benchmarks, and what their pages share."""

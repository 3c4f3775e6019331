"""What a measurement must be for a family to be said to work."""

from tests.families.measure import Measurement

# Rounding may differ between two graphs by this much of the largest output.
TOLERANCE = 2e-6


def is_exact(measured: Measurement) -> bool:
    """Whether nothing but rounding separates a family from what it is compared with."""
    errors = (
        measured.own_embeddings,
        measured.real_tokens,
        measured.right_padding,
        measured.round_trip,
        *measured.tasks.values(),
    )
    # Comparisons that are false for NaN.
    exact = all(error <= TOLERANCE * measured.scale for error in errors)
    return exact and 1e-6 < measured.gradient < 1e6

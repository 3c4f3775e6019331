"""How many numbers prompts cost."""

from __future__ import annotations

from keras_mpt.checks import check_sizes


def multitask_parameter_count(
    num_virtual_tokens: int,
    token_dim: int,
    num_tasks: int,
    num_ranks: int = 1,
    num_transformer_submodules: int = 1,
) -> int:
    """Numbers in a multitask prompt: M·L·d + T·(M·L·R + R·d).

    Args:
        num_virtual_tokens: int. L.
        token_dim: int. d.
        num_tasks: int. T.
        num_ranks: int. R. Defaults to `1`.
        num_transformer_submodules: int. M. Defaults to `1`.

    Returns:
        An int.

    Example:
        ```python
        assert keras_mpt.multitask_parameter_count(20, 768, num_tasks=10, num_ranks=8) == 78_400
        ```

    Source: Wang et al. 2023, section 3.
    """
    check_sizes(
        {
            "num_virtual_tokens": num_virtual_tokens,
            "token_dim": token_dim,
            "num_tasks": num_tasks,
            "num_ranks": num_ranks,
            "num_transformer_submodules": num_transformer_submodules,
        }
    )
    length = num_transformer_submodules * num_virtual_tokens
    per_task = num_ranks * (length + token_dim)
    return length * token_dim + num_tasks * per_task


def full_prompt_parameter_count(
    num_virtual_tokens: int,
    token_dim: int,
    num_tasks: int,
    num_transformer_submodules: int = 1,
) -> int:
    """Numbers in one ordinary prompt per task: T·M·L·d.

    Args:
        num_virtual_tokens: int. L.
        token_dim: int. d.
        num_tasks: int. T.
        num_transformer_submodules: int. M. Defaults to `1`.

    Returns:
        An int.

    Example:
        ```python
        assert keras_mpt.full_prompt_parameter_count(20, 768, num_tasks=10) == 153_600
        ```
    """
    check_sizes(
        {
            "num_virtual_tokens": num_virtual_tokens,
            "token_dim": token_dim,
            "num_tasks": num_tasks,
            "num_transformer_submodules": num_transformer_submodules,
        }
    )
    return num_tasks * num_transformer_submodules * num_virtual_tokens * token_dim

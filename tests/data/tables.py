"""Stand-ins for tables and their columns as other libraries have them: only what they can do."""

from collections.abc import Sequence

import numpy as np


class Series:
    """As pandas': an array's attributes, and labels of its own that are no places."""

    def __init__(self, values):
        self.values = np.asarray(values, object)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)

    def __iter__(self):
        return iter(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def tolist(self):
        """The values."""
        return self.values.tolist()


class Column(Sequence):
    """As Hugging Face's datasets have: read from the table as it is asked for."""

    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return self.values[row]


class Arrow:
    """As Arrow's: its own scalars unless asked for Python's."""

    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter([object() for _ in self.values])

    def to_pylist(self):
        """The values."""
        return self.values


class DataFrame:
    """As pandas': columns by name, and iteration over names."""

    shape = None

    def __init__(self, columns, column=Series):
        self.columns = list(columns)
        self._columns = {name: column(values) for name, values in columns.items()}

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name):
        return self._columns[name]

    def __iter__(self):
        return iter(self.columns)


class Dataset(DataFrame):
    """As Hugging Face's: columns that are read when they are asked for."""

    def __init__(self, columns):
        super().__init__(columns, Column)
        self.column_names = self.columns
        del self.columns

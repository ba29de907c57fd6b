//! Grid tables against tabulate.

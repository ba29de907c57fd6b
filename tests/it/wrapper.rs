//! The two commands on a fresh machine.

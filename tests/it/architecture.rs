//! What must stay true of the sources themselves.

//! Tests of the session: whole output lists.
